"""Messages that wait for a limiter: each tenant's order, and nobody held up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tenantry.bus import Bus, Message
from tenantry.messages import Plan
from tenantry_workers.router.admission import Limited
from tenantry_workers.router.limits import Decision, Level, Meter
from tenantry_workers.router.limits.meter import Resume
from tenantry_workers.router.parking import Parking
from tenantry_workers.router.quotas import Quotas
from tenantry_workers.router.scopes import Limits

METER = Meter("default", 1.0, 1)
YES = Decision(True, METER, 0)


class Waiting:
    """A limiter that can't tell yet."""

    def __init__(self) -> None:
        self.parked: list[Resume] = []

    def take(self, tenant: str, meters: Sequence[Meter], now: float) -> Decision | None:
        return None

    def park(self, tenant: str, meters: Sequence[Meter], resume: Resume) -> None:
        self.parked.append(resume)

    def level(self, tenant: str, meter: Meter, now: float) -> Level:
        return Level(0.0, shared=False)


class Lot:
    """A parking whose messages are noted as they are finished; `bad` ones fail."""

    def __init__(self) -> None:
        self.limiter = Waiting()
        self.finished: list[str] = []
        self.parking = Parking(self.limiter, Quotas(Bus([])), self._finish)

    def _finish(self, message: Message, limited: Limited) -> None:
        self.finished.append(message.subject)
        if message.subject == "bad":
            raise RuntimeError("no")

    def send(self, name: str, tenant: str = "acme", decision: Decision | None = None) -> bool:
        message = Message(name, "", b"")
        return self.parking.holds(
            message, Limited(tenant, Plan(name="p"), Limits((METER,), ()), decision)
        )

    async def go_on(self) -> None:
        for resume in self.limiter.parked:
            resume(YES)
        await self.parking.drain()


@pytest.fixture
async def lot() -> Lot:
    return Lot()


async def test_what_is_decided_is_not_held(lot: Lot) -> None:
    assert not lot.send("one", decision=YES)


async def test_what_is_not_decided_is_held_until_it_is(lot: Lot) -> None:
    assert lot.send("one")
    assert lot.finished == []
    await lot.go_on()
    assert lot.finished == ["one"]


async def test_what_comes_behind_keeps_its_place(lot: Lot) -> None:
    lot.send("one")
    lot.send("two")
    await lot.go_on()
    assert lot.finished == ["one", "two"]


async def test_another_tenant_is_not_held(lot: Lot) -> None:
    lot.send("one")
    assert not lot.send("two", "globex", YES)


async def test_afterwards_nothing_is_held(lot: Lot) -> None:
    lot.send("one")
    await lot.go_on()
    assert not lot.send("two", decision=YES)


async def test_a_message_that_fails_holds_up_nobody(lot: Lot) -> None:
    lot.send("bad")
    lot.send("two")
    await lot.go_on()
    assert lot.finished == ["bad", "two"]
