"""The limits of one router against an exact reference, on a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tenantry.messages import SHIPPED_PLANS
from tenantry_workers.router.limits import Decision, LocalLimiter, Meter
from tenantry_workers.router.scopes import limits_of

SLACK = Fraction(2, 1000)
"""What the limiter may be off by, messages: floating point, and a clock of limited precision."""

DAY = 86_400.0
STARTS = [0.0, 12.345678901, 1e6, 1e7, 1e8]
"""Uptimes of a machine: the monotonic clock counts from its start."""

any_meters = st.builds(
    Meter,
    name=st.just("any"),
    rate=st.one_of(
        st.sampled_from([0.1, 1 / 3, 1.0, 3.0, 50.0, 500.0, 5000.0]), st.floats(0.05, 10_000)
    ),
    burst=st.one_of(st.sampled_from([1, 2, 10]), st.integers(1, 300)),
    fail_closed=st.just(False),
    shadow=st.just(False),
)
starts = st.sampled_from(STARTS)


@dataclass
class Exact:
    """A bucket that leaks, in fractions: what the limiter promises."""

    meter: Meter
    held: Fraction = Fraction(0)
    at: Fraction = Fraction(0)

    def take(self, now: float) -> Fraction:
        """How far one more message is over the bucket's rim; it is taken where that is not so."""
        self.held = max(
            self.held - (Fraction(now) - self.at) * Fraction(self.meter.rate), Fraction(0)
        )
        self.at = Fraction(now)
        return self.held + 1 - self.meter.burst


def arrivals(meter: Meter) -> st.SearchStrategy[list[float]]:
    """Gaps between messages: none, about one message's worth, or a rest."""
    one = 1 / meter.rate
    gap = st.one_of(
        st.just(0.0),
        st.floats(0, 2 * one),
        st.sampled_from([one, one / 2, one * meter.burst, DAY]),
    )
    return st.lists(gap, min_size=1, max_size=60)


def spend(limiter: LocalLimiter, meter: Meter, now: float, tenant: str = "acme") -> int:
    """Send until refused; how many were allowed."""
    allowed = 0
    while limiter.take(tenant, (meter,), now).allowed:
        allowed += 1
    return allowed


@given(meter=any_meters, start=starts, data=st.data())
def test_each_verdict_is_that_of_the_exact_reference(
    meter: Meter, start: float, data: st.DataObject
) -> None:
    limiter, exact, now = LocalLimiter(), Exact(meter), start
    for gap in data.draw(arrivals(meter)):
        now += gap
        over = exact.take(now)
        grant = limiter.take("acme", (meter,), now)
        if abs(over) > SLACK:
            assert grant.allowed == (over < 0)
        exact.held += grant.allowed


@given(meter=any_meters, start=starts, data=st.data())
def test_no_window_has_more_than_the_burst_and_the_rate(
    meter: Meter, start: float, data: st.DataObject
) -> None:
    limiter, now = LocalLimiter(), start
    sent: list[float] = []
    for gap in data.draw(arrivals(meter)):
        now += gap
        # As greedy as can be: all that is allowed at each moment.
        sent += [now] * spend(limiter, meter, now)
        if len(sent) > 600:
            break
    for first, begin in enumerate(sent):
        for last in range(first, len(sent)):
            length = Fraction(sent[last]) - Fraction(begin)
            bound = meter.burst + Fraction(meter.rate) * length
            assert last - first + 1 <= bound + SLACK
        if first > 5:
            break  # windows that begin at the first few; the rest is the same by shifting


@given(meter=any_meters, start=starts)
def test_after_a_rest_the_burst_is_allowed_at_once_and_no_more(meter: Meter, start: float) -> None:
    limiter = LocalLimiter()
    assert spend(limiter, meter, start) == meter.burst
    assert spend(limiter, meter, start + meter.burst / meter.rate + 0.01) == meter.burst


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "meter",
    [
        *(limits_of(plan, "any").meters[0]._replace(name=plan.name) for plan in SHIPPED_PLANS),
        Meter("daily", 3.0, 100_000),
    ],
    ids=lambda p: p.name,
)
def test_what_remains_is_told_exactly_however_long_the_machine_is_up(
    meter: Meter, start: float
) -> None:
    limiter = LocalLimiter()
    told = [limiter.take("acme", (meter,), start).remaining for _ in range(meter.burst)]
    assert told == list(range(meter.burst - 1, -1, -1))


@given(meter=any_meters, start=starts, data=st.data())
def test_what_remains_can_follow_at_once_and_no_more(
    meter: Meter, start: float, data: st.DataObject
) -> None:
    limiter, now = LocalLimiter(), start
    for gap in data.draw(arrivals(meter)):
        now += gap
        grant = limiter.take("acme", (meter,), now)
    assert spend(limiter, meter, now) == grant.remaining


@given(meter=any_meters, start=starts, part=st.floats(0, 0.98))
def test_after_retry_after_one_is_allowed_and_just_before_it_is_not(
    meter: Meter, start: float, part: float
) -> None:
    limiter = LocalLimiter()
    spend(limiter, meter, start)
    refused = limiter.take("acme", (meter,), start)
    early = start + refused.retry_after * part
    assume(early < start + refused.retry_after)
    assert not limiter.take("acme", (meter,), early).allowed
    assert limiter.take("acme", (meter,), start + refused.retry_after).allowed


@given(meter=any_meters, start=starts)
def test_a_refusal_costs_nothing(meter: Meter, start: float) -> None:
    limiter = LocalLimiter()
    spend(limiter, meter, start)
    waits = [limiter.take("acme", (meter,), start).retry_after for _ in range(50)]
    assert set(waits) == {waits[0]}
    assert limiter.take("acme", (meter,), start + waits[0]).allowed


def test_a_message_that_is_allowed_need_not_wait() -> None:
    assert LocalLimiter().take("acme", (Meter("any", 50.0, 5),), 0.0) == Decision(
        True, Meter("any", 50.0, 5), 4
    )


def test_one_that_is_refused_leaves_nothing() -> None:
    limiter, meter = LocalLimiter(), Meter("any", 2.0, 1)
    limiter.take("acme", (meter,), 0.0)
    assert limiter.take("acme", (meter,), 0.0) == Decision(False, Meter("any", 2.0, 1), 0, 0.5)


def test_tenants_do_not_share_a_budget() -> None:
    limiter, meter = LocalLimiter(), Meter("any", 50.0, 3)
    spend(limiter, meter, 0.0, "acme")
    assert spend(limiter, meter, 0.0, "globex") == 3


def test_tenants_share_no_budget_of_a_service_either() -> None:
    limiter, both = LocalLimiter(), (Meter("any", 50.0, 9), Meter("orders", 50.0, 3))
    while limiter.take("acme", both, 0.0).allowed:
        pass
    assert limiter.take("globex", both, 0.0).allowed


def test_in_the_long_run_the_rate_is_kept() -> None:
    limiter, meter = LocalLimiter(), Meter("any", 50.0, 100)
    allowed = sum(limiter.take("acme", (meter,), step / 1000).allowed for step in range(100_000))
    assert allowed == 100 + 50 * 100 - 1  # the last of them would be due at 100 s


# another plan


def test_a_quicker_plan_helps_at_once() -> None:
    """What a slow plan has used up is no debt of days in a quick one."""
    limiter = LocalLimiter()
    spend(limiter, Meter("any", 0.01, 1000), 0.0)
    assert spend(limiter, Meter("any", 100.0, 2000), 0.0) == 1000
    assert limiter.take("acme", (Meter("any", 100.0, 2000),), 0.01).allowed


@pytest.mark.parametrize(("rate", "wait"), [(1.0, 1.0), (10.0, 0.1)])
def test_a_smaller_burst_does_not_block_for_longer_than_one_message(
    rate: float, wait: float
) -> None:
    limiter = LocalLimiter()
    spend(limiter, Meter("any", 1.0, 10_000), 0.0)
    refused = limiter.take("acme", (Meter("any", rate, 5),), 0.0)
    assert refused.retry_after == pytest.approx(wait)


def test_to_a_smaller_plan_and_back_gives_at_most_the_difference() -> None:
    limiter = LocalLimiter()
    one, other = Meter("any", 50.0, 100), Meter("any", 50.0, 50)
    spend(limiter, one, 0.0)
    assert spend(limiter, other, 0.0) == 0
    assert spend(limiter, one, 0.0) <= 50


# housekeeping


@given(meter=any_meters, start=starts, data=st.data())
def test_forgetting_the_idle_changes_no_verdict(
    meter: Meter, start: float, data: st.DataObject
) -> None:
    tidy, keeping, now = LocalLimiter(), LocalLimiter(), start
    for gap in data.draw(arrivals(meter)):
        now += gap
        tidy.forget_idle(now)
        assert tidy.take("acme", (meter,), now) == keeping.take("acme", (meter,), now)


def test_who_is_not_idle_is_not_forgotten() -> None:
    limiter, meter = LocalLimiter(), Meter("any", 1.0, 5)
    spend(limiter, meter, 0.0)
    limiter.forget_idle(4.0)
    assert spend(limiter, meter, 4.0) == 4


def test_a_thousand_idle_tenants_leave_nothing_behind() -> None:
    limiter, meter = LocalLimiter(), Meter("any", 1.0, 5)
    for number in range(1000):
        limiter.take(f"t{number}", (meter,), 0.0)
    assert len(limiter) == 1000
    limiter.forget_idle(1.0)
    assert len(limiter) == 0


def test_what_is_parked_is_decided_at_once() -> None:
    limiter, told = LocalLimiter(), []
    for _ in range(2):
        limiter.park("acme", (Meter("default", 0.001, 1),), told.append)
    assert [decision.allowed for decision in told] == [True, False]


def test_the_level_is_what_is_left() -> None:
    limiter, meter = LocalLimiter(), Meter("default", 1.0, 10)
    for _ in range(4):
        limiter.take("acme", (meter,), 100.0)
    assert limiter.level("acme", meter, 100.0).left == 6.0
    assert limiter.level("acme", meter, 102.0).left == 8.0
    assert limiter.level("globex", meter, 100.0).left == 10.0


def test_the_level_is_of_its_own_part() -> None:
    limiter, meter = LocalLimiter(lambda: 2), Meter("default", 1.0, 10)
    limiter.take("acme", (meter,), 100.0)
    assert limiter.level("acme", meter, 100.0) == (4.0, False)
