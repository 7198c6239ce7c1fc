"""The limiter against an exact reference, on a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tenantry.messages import SHIPPED_PLANS, Plan
from tenantry_workers.router.limiter import Grant, LocalLimiter

SLACK = Fraction(2, 1000)
"""What the limiter may be off by, messages: floating point, and a clock of limited precision."""

DAY = 86_400.0
STARTS = [0.0, 12.345678901, 1e6, 1e7, 1e8]
"""Uptimes of a machine: the monotonic clock counts from its start."""

plans = st.builds(
    Plan,
    name=st.just("any"),
    rate=st.one_of(
        st.sampled_from([0.1, 1 / 3, 1.0, 3.0, 50.0, 500.0, 5000.0]), st.floats(0.05, 10_000)
    ),
    burst=st.one_of(st.sampled_from([1, 2, 10]), st.integers(1, 300)),
)
starts = st.sampled_from(STARTS)


@dataclass
class Exact:
    """A bucket that leaks, in fractions: what the limiter promises."""

    plan: Plan
    held: Fraction = Fraction(0)
    at: Fraction = Fraction(0)

    def take(self, now: float) -> Fraction:
        """How far one more message is over the bucket's rim; it is taken where that is not so."""
        self.held = max(
            self.held - (Fraction(now) - self.at) * Fraction(self.plan.rate), Fraction(0)
        )
        self.at = Fraction(now)
        return self.held + 1 - self.plan.burst


def arrivals(plan: Plan) -> st.SearchStrategy[list[float]]:
    """Gaps between messages: none, about one message's worth, or a rest."""
    one = 1 / plan.rate
    gap = st.one_of(
        st.just(0.0),
        st.floats(0, 2 * one),
        st.sampled_from([one, one / 2, one * plan.burst, DAY]),
    )
    return st.lists(gap, min_size=1, max_size=60)


def spend(limiter: LocalLimiter, plan: Plan, now: float, tenant: str = "acme") -> int:
    """Send until refused; how many were allowed."""
    allowed = 0
    while limiter.take(tenant, plan, now).allowed:
        allowed += 1
    return allowed


@given(plan=plans, start=starts, data=st.data())
def test_each_verdict_is_that_of_the_exact_reference(
    plan: Plan, start: float, data: st.DataObject
) -> None:
    limiter, exact, now = LocalLimiter(), Exact(plan), start
    for gap in data.draw(arrivals(plan)):
        now += gap
        over = exact.take(now)
        grant = limiter.take("acme", plan, now)
        if abs(over) > SLACK:
            assert grant.allowed == (over < 0)
        exact.held += grant.allowed


@given(plan=plans, start=starts, data=st.data())
def test_no_window_has_more_than_the_burst_and_the_rate(
    plan: Plan, start: float, data: st.DataObject
) -> None:
    limiter, now = LocalLimiter(), start
    sent: list[float] = []
    for gap in data.draw(arrivals(plan)):
        now += gap
        # As greedy as can be: all that is allowed at each moment.
        sent += [now] * spend(limiter, plan, now)
        if len(sent) > 600:
            break
    for first, begin in enumerate(sent):
        for last in range(first, len(sent)):
            length = Fraction(sent[last]) - Fraction(begin)
            bound = plan.burst + Fraction(plan.rate) * length
            assert last - first + 1 <= bound + SLACK
        if first > 5:
            break  # windows that begin at the first few; the rest is the same by shifting


@given(plan=plans, start=starts)
def test_after_a_rest_the_burst_is_allowed_at_once_and_no_more(plan: Plan, start: float) -> None:
    limiter = LocalLimiter()
    assert spend(limiter, plan, start) == plan.burst
    assert spend(limiter, plan, start + plan.burst / plan.rate + 0.01) == plan.burst


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "plan", [*SHIPPED_PLANS, Plan(name="daily", rate=3.0, burst=100_000)], ids=lambda p: p.name
)
def test_what_remains_is_told_exactly_however_long_the_machine_is_up(
    plan: Plan, start: float
) -> None:
    limiter = LocalLimiter()
    told = [limiter.take("acme", plan, start).remaining for _ in range(plan.burst)]
    assert told == list(range(plan.burst - 1, -1, -1))


@given(plan=plans, start=starts, data=st.data())
def test_what_remains_can_follow_at_once_and_no_more(
    plan: Plan, start: float, data: st.DataObject
) -> None:
    limiter, now = LocalLimiter(), start
    for gap in data.draw(arrivals(plan)):
        now += gap
        grant = limiter.take("acme", plan, now)
    assert spend(limiter, plan, now) == grant.remaining


@given(plan=plans, start=starts, part=st.floats(0, 0.98))
def test_after_retry_after_one_is_allowed_and_just_before_it_is_not(
    plan: Plan, start: float, part: float
) -> None:
    limiter = LocalLimiter()
    spend(limiter, plan, start)
    refused = limiter.take("acme", plan, start)
    early = start + refused.retry_after * part
    assume(early < start + refused.retry_after)
    assert not limiter.take("acme", plan, early).allowed
    assert limiter.take("acme", plan, start + refused.retry_after).allowed


@given(plan=plans, start=starts)
def test_a_refusal_costs_nothing(plan: Plan, start: float) -> None:
    limiter = LocalLimiter()
    spend(limiter, plan, start)
    waits = [limiter.take("acme", plan, start).retry_after for _ in range(50)]
    assert set(waits) == {waits[0]}
    assert limiter.take("acme", plan, start + waits[0]).allowed


def test_a_message_that_is_allowed_need_not_wait() -> None:
    assert LocalLimiter().take("acme", Plan(name="p", burst=5), 0.0) == Grant(True, 4, 0.0)


def test_one_that_is_refused_leaves_nothing() -> None:
    limiter, plan = LocalLimiter(), Plan(name="p", rate=2.0, burst=1)
    limiter.take("acme", plan, 0.0)
    assert limiter.take("acme", plan, 0.0) == Grant(False, 0, 0.5)


def test_tenants_do_not_share_a_budget() -> None:
    limiter, plan = LocalLimiter(), Plan(name="p", burst=3)
    spend(limiter, plan, 0.0, "acme")
    assert spend(limiter, plan, 0.0, "globex") == 3


def test_in_the_long_run_the_rate_is_kept() -> None:
    limiter, plan = LocalLimiter(), Plan(name="p", rate=50.0, burst=100)
    allowed = sum(limiter.take("acme", plan, step / 1000).allowed for step in range(100_000))
    assert allowed == 100 + 50 * 100 - 1  # the last of them would be due at 100 s


# another plan


def test_a_quicker_plan_helps_at_once() -> None:
    """What a slow plan has used up is no debt of days in a quick one."""
    limiter = LocalLimiter()
    spend(limiter, Plan(name="daily", rate=0.01, burst=1000), 0.0)
    assert spend(limiter, Plan(name="more", rate=100.0, burst=2000), 0.0) == 1000
    assert limiter.take("acme", Plan(name="more", rate=100.0, burst=2000), 0.01).allowed


@pytest.mark.parametrize(("rate", "wait"), [(1.0, 1.0), (10.0, 0.1)])
def test_a_smaller_burst_does_not_block_for_longer_than_one_message(
    rate: float, wait: float
) -> None:
    limiter = LocalLimiter()
    spend(limiter, Plan(name="big", rate=1.0, burst=10_000), 0.0)
    refused = limiter.take("acme", Plan(name="small", rate=rate, burst=5), 0.0)
    assert refused.retry_after == pytest.approx(wait)


def test_to_a_smaller_plan_and_back_gives_at_most_the_difference() -> None:
    limiter = LocalLimiter()
    one, other = Plan(name="a", burst=100), Plan(name="b", burst=50)
    spend(limiter, one, 0.0)
    assert spend(limiter, other, 0.0) == 0
    assert spend(limiter, one, 0.0) <= 50


# housekeeping


@given(plan=plans, start=starts, data=st.data())
def test_forgetting_the_idle_changes_no_verdict(
    plan: Plan, start: float, data: st.DataObject
) -> None:
    tidy, keeping, now = LocalLimiter(), LocalLimiter(), start
    for gap in data.draw(arrivals(plan)):
        now += gap
        tidy.forget_idle(now)
        assert tidy.take("acme", plan, now) == keeping.take("acme", plan, now)


def test_who_is_not_idle_is_not_forgotten() -> None:
    limiter, plan = LocalLimiter(), Plan(name="p", rate=1.0, burst=5)
    spend(limiter, plan, 0.0)
    limiter.forget_idle(4.0)
    assert spend(limiter, plan, 4.0) == 4


def test_a_thousand_idle_tenants_leave_nothing_behind() -> None:
    limiter, plan = LocalLimiter(), Plan(name="p", rate=1.0, burst=5)
    for number in range(1000):
        limiter.take(f"t{number}", plan, 0.0)
    assert len(limiter) == 1000
    limiter.forget_idle(1.0)
    assert len(limiter) == 0
