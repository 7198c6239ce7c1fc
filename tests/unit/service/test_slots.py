"""The slots of a service on a virtual clock: who is told what, and what can be read."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

import pytest

from tenantry import Service, errors
from tenantry.errors import Rejection
from tenantry.fairness.breaker import Verdict
from tenantry.fairness.tenant import Held
from tenantry.fairness.ticket import Ticket
from tenantry.runtime.slots import Slots
from tenantry.runtime.stats import Stats


@dataclass
class Desk:
    """A service with two slots, its clock, and what was decided."""

    slots: Slots = field(init=False)
    now: float = 100.0
    deadline: float = math.inf
    running: list[Ticket] = field(default_factory=list)
    refused: list[tuple[str, Rejection]] = field(default_factory=list)
    concurrency: int = 2
    adaptive: bool = False
    stats: Stats = field(default_factory=Stats)

    def __post_init__(self) -> None:
        service = Service("any", concurrency=self.concurrency, adaptive=self.adaptive)
        self.slots = Slots(service, self.stats, clock=lambda: self.now)

    def start(self, ticket: Ticket) -> None:
        self.running.append(ticket)

    def refuse(self, ticket: Ticket, why: Rejection) -> None:
        self.refused.append((ticket.tenant, why))

    def left(self) -> float:
        return self.deadline - self.now

    def ask(self, tenant: str, *, expires: float = math.inf) -> Ticket:
        self.deadline = expires
        ticket = Ticket(tenant, "any.ask", self)
        if self.slots.enter(ticket):
            self.running.append(ticket)
        return ticket

    def end(self, seconds: float = 0.1, verdict: Verdict = Verdict.WORKED) -> None:
        """The one that runs longest ends after so long."""
        self.now += seconds
        self.slots.leave(self.running.pop(0), verdict)


class Load:
    """Tenants of whom a hundred messages are always there, that take as long as it is told."""

    def __init__(self, *tenants: str, stored: bool = False, adaptive: bool = True) -> None:
        self.desk = Desk(concurrency=64, adaptive=adaptive)
        self.stored = stored
        for number in range(100):
            self._send(tenants[number % len(tenants)])

    def run(self, seconds: float, *, rounds: int = 4000) -> int:
        """So many messages; how many may run at once then."""
        desk = self.desk
        for _ in range(rounds):
            longest = desk.running.pop(0)
            desk.now = max(desk.now, longest.began + seconds)
            desk.slots.leave(longest)
            refused, desk.refused = desk.refused, []
            for tenant in (longest.tenant, *(name for name, _ in refused)):
                self._send(tenant)
        return desk.stats.slots

    def _send(self, tenant: str) -> None:
        ticket = Ticket(tenant, "any.do", self.desk, stored=self.stored)
        if self.desk.slots.enter(ticket):
            self.desk.running.append(ticket)


@pytest.mark.parametrize("tenants", [("a",), ("a", "b"), tuple("abcdefgh")])
@pytest.mark.parametrize("stored", [False, True], ids=["requests", "journal"])
def test_a_slow_service_runs_fewer_and_recovers(tenants: tuple[str, ...], stored: bool) -> None:
    load = Load(*tenants, stored=stored)
    assert load.run(0.05) == 64
    assert load.run(0.5, rounds=600) <= 16
    assert load.run(0.05, rounds=12_000) == 64


def test_one_that_is_not_adaptive_stays_as_it_is() -> None:
    load = Load("a", "b", adaptive=False)
    assert [load.run(0.05, rounds=500), load.run(0.5, rounds=500)] == [64, 64]


def test_slots_are_taken_at_once_while_there_are_some() -> None:
    desk = Desk()
    for _ in range(3):
        desk.ask("a")
    assert [ticket.tenant for ticket in desk.running] == ["a", "a"]


def test_a_snapshot_says_what_goes_on() -> None:
    desk = Desk()
    for tenant in ("a", "a", "a", "b"):
        desk.ask(tenant)
    found = desk.slots.snapshot()
    assert (found.limit, found.running, found.waiting, found.at_once) == (2, 2, 2, 2)
    assert found.tenants == {"a": Held(2, 1), "b": Held(0, 1)}


def test_a_snapshot_says_how_long_messages_waited() -> None:
    desk = Desk()
    for _ in range(3):
        desk.ask("a")
    desk.end(0.2)
    found = desk.slots.snapshot()
    assert found.queueing_seconds == pytest.approx(0.2)
    assert (sum(found.queueing), found.queueing[4]) == (1, 1)


def test_a_full_queue_is_429_until_it_has_drained() -> None:
    desk = Desk()
    for _ in range(2 + 32):
        desk.ask("a")
    for _ in range(8):
        desk.end(0.5)
        desk.ask("a")
    with pytest.raises(errors.RateLimited) as caught:
        desk.ask("a")
    assert caught.value.extensions["violated_policies"] == ["queue"]
    assert caught.value.retry_after == pytest.approx(33 * 0.5)  # and itself
    desk.ask("b")
    assert desk.slots.snapshot().refused == {"queue": 1}


def test_what_cannot_be_met_at_best_is_refused_at_once() -> None:
    desk = Desk()
    desk.ask("a")
    desk.end(1.0)
    for _ in range(2):
        desk.ask("a")
    with pytest.raises(errors.DeadlineExceeded):
        desk.ask("b", expires=desk.now + 0.5)
    desk.ask("b", expires=desk.now + 1.5)


def test_what_has_become_too_late_is_refused_and_does_not_run() -> None:
    desk = Desk()
    for _ in range(2):
        desk.ask("a")
    desk.ask("b", expires=desk.now + 0.5)
    desk.end(1.0)
    assert [(tenant, why.code) for tenant, why in desk.refused] == [("b", "deadline_exceeded")]
    assert [ticket.tenant for ticket in desk.running] == ["a"]
    assert desk.slots.snapshot().running == 1


def test_a_tenants_own_concurrency_is_divided_over_the_replicas() -> None:
    desk = Desk()
    assert desk.slots.share(6) == 6
    desk.slots.replicas = 3
    assert [desk.slots.share(each) for each in (6, 2, 0)] == [2, 1, 0]


def test_calls_that_only_fail_are_refused_for_their_tenant_alone() -> None:
    desk = Desk()
    for _ in range(20):
        desk.ask("bad")
        desk.end(verdict=Verdict.FAILED)
    with pytest.raises(errors.Unavailable) as caught:
        desk.ask("bad")
    assert caught.value.retry_after == pytest.approx(1.0)
    assert desk.slots.snapshot().open == ("bad",)
    desk.ask("good")


def test_a_probe_that_is_refused_is_followed_by_another() -> None:
    desk = Desk()
    for _ in range(20):
        desk.ask("bad")
        desk.end(1.0, Verdict.FAILED)
    desk.now += 1.0
    for _ in range(2):
        desk.ask("good")
    with pytest.raises(errors.DeadlineExceeded):
        desk.ask("bad", expires=desk.now)
    probe = desk.ask("bad")
    assert probe.state == "waiting"


async def test_a_message_of_the_journal_waits_for_its_slot() -> None:
    desk = Desk()
    for _ in range(2):
        desk.ask("a")
    held = asyncio.create_task(desk.slots.hold("b", "any.do"))
    await asyncio.sleep(0)
    assert not held.done()
    desk.end()
    assert (await held).state == "running"


async def test_one_that_is_not_wanted_any_more_leaves_its_place_to_others() -> None:
    desk = Desk()
    for _ in range(2):
        desk.ask("a")
    held = asyncio.create_task(desk.slots.hold("b", "any.do"))
    await asyncio.sleep(0)
    held.cancel()
    await asyncio.wait({held})
    desk.ask("c")
    desk.end()
    assert [ticket.tenant for ticket in desk.running] == ["a", "c"]


async def test_one_that_is_cancelled_as_it_gets_its_slot_gives_it_back() -> None:
    desk = Desk()
    for _ in range(2):
        desk.ask("a")
    held = asyncio.create_task(desk.slots.hold("b", "any.do"))
    await asyncio.sleep(0)
    desk.end()
    held.cancel()
    await asyncio.wait({held})
    assert desk.slots.snapshot().running == 1
