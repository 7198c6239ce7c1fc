"""What is between soft and hard on a plan that slows down: how long each message is held up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tenantry.bus import Bus, Message
from tenantry.messages import Plan, Quota
from tenantry_workers.router.admission import Limited
from tenantry_workers.router.limits import Decision, LocalLimiter, Meter
from tenantry_workers.router.parking import Parking
from tenantry_workers.router.quotas import Quotas, Standing, Verdict
from tenantry_workers.router.scopes import Limits

METER = Meter("default", 1.0, 1)
YES = Decision(True, METER, 0)


def quota(**fields: Any) -> Quota:
    given = {"amount": 100, "soft": 50, "between": "slow", "delay": 2.0} | fields
    return Quota(period="day", **given)


def used(count: int, *, tenant: str = "acme", **fields: Any) -> Limited:
    """A message that is the tenant's so many-th."""
    own = quota(**fields)
    standing = Standing(own, left=own.limit - count, reset=60, window=86_400)
    between = (standing,) if count > own.threshold else ()
    verdict = Verdict(tightest=standing, between=between)
    return Limited(tenant, Plan(name="p"), Limits((METER,), (own,)), YES, verdict)


class Clock:
    """A loop's clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[..., None], *arguments: Any) -> None:
        self.calls.append((when, lambda: call(*arguments)))

    def go_to(self, now: float) -> None:
        self.now = now
        due = [call for when, call in self.calls if when <= now]
        self.calls = [each for each in self.calls if each[0] > now]
        for call in due:
            call()


class Lot:
    """A parking on a clock of its own."""

    def __init__(self) -> None:
        self.finished: list[str] = []
        self.clock = Clock()
        self.parking = Parking(LocalLimiter(), Quotas(Bus([])), self._finish)
        self.parking._loop = self.clock  # type: ignore[assignment]

    def _finish(self, message: Message, limited: Limited) -> None:
        self.finished.append(message.subject)

    def send(self, name: str, limited: Limited) -> bool:
        return self.parking.holds(Message(name, "", b""), limited)

    def at(self, now: float) -> list[str]:
        """What has gone on by then."""
        self.clock.go_to(now)
        return self.finished


@pytest.fixture
async def lot() -> Lot:
    return Lot()


@pytest.mark.parametrize(("count", "delay"), [(50, 0.0), (75, 1.0), (100, 2.0)])
def test_the_delay_grows_from_soft_to_hard(count: int, delay: float) -> None:
    assert used(count).delay == delay


@pytest.mark.parametrize("between", ["warn", "low", "charge"])
def test_other_plans_do_not_slow_down(between: str) -> None:
    assert used(75, between=between, hard=200, amount=75, soft=50).delay == 0.0


async def test_a_message_goes_on_when_its_delay_is_over_and_not_before(lot: Lot) -> None:
    assert lot.send("one", used(75))
    assert lot.at(100.9) == []
    assert lot.at(101.0) == ["one"]


async def test_below_soft_it_goes_on_at_once(lot: Lot) -> None:
    assert not lot.send("one", used(50))


async def test_a_message_behind_does_not_overtake(lot: Lot) -> None:
    lot.send("one", used(100))
    lot.send("two", used(75))
    assert lot.at(101.9) == []
    assert lot.at(102.0) == ["one", "two"]


async def test_messages_are_held_up_side_by_side(lot: Lot) -> None:
    """Not one after the other: a burst takes no longer than the longest of them."""
    for number in range(10):
        lot.send(str(number), used(90 + number))
    assert lot.at(102.0) == [str(number) for number in range(10)]


async def test_another_tenant_is_not_held_up(lot: Lot) -> None:
    lot.send("one", used(100))
    assert not lot.send("two", used(1, tenant="globex"))
