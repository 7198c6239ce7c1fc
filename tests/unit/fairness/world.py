"""A service on a virtual clock: tenants that always have so much outstanding, and what they get."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tenantry.fairness.scheduler import Scheduler
from tenantry.fairness.ticket import Ticket

Cost = Callable[[random.Random], float]


@dataclass(frozen=True)
class Load:
    """What a tenant wants: `outstanding` messages at any time, each of which takes `cost`."""

    cost: Cost
    outstanding: int
    weight: int = 1
    concurrency: int = 0
    stored: bool = False
    pause: float = 0.0
    """How long it thinks before it sends the next one."""


def steady(seconds: float) -> Cost:
    return lambda _: seconds


class World:
    """Runs loads on a scheduler; `work` and `waits` say what came of them."""

    def __init__(self, scheduler: Scheduler, loads: Mapping[str, Load], seed: int = 1) -> None:
        self.scheduler = scheduler
        self.loads = loads
        self.now = 0.0
        self.work = dict.fromkeys(loads, 0.0)
        self.waits: dict[str, list[float]] = {name: [] for name in loads}
        self.most = dict.fromkeys(loads, 0)
        """How many ran at once."""
        self.idle = 0
        """How often a slot was free while a message waited."""
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Ticket | str]] = []
        self._count = 0

    def run(self, seconds: float) -> World:
        """Play so many seconds."""
        for name, load in self.loads.items():
            for _ in range(load.outstanding):
                self._later(self.now, name)
        while self._events and self._events[0][0] <= seconds:
            self.now, _, event = heapq.heappop(self._events)
            if isinstance(event, str):
                self._send(event)
            else:
                self.work[event.tenant] += self.now - event.began
                self.scheduler.leave(event, self.now)
                self._later(self.now + self.loads[event.tenant].pause, event.tenant)
            while (ticket := self.scheduler.next(self.now)) is not None:
                self._begin(ticket)
            waiting = sum(held.waiting for held in self.scheduler.tenants().values())
            self.idle += bool(waiting and self.scheduler.running < self.scheduler.limit)
        return self

    def shares(self) -> dict[str, float]:
        """Each tenant's work over what its weight entitles it to: 1 is fair."""
        total, weights = sum(self.work.values()), sum(load.weight for load in self.loads.values())
        return {
            name: work / total / (self.loads[name].weight / weights)
            for name, work in self.work.items()
        }

    def _send(self, name: str) -> None:
        load = self.loads[name]
        ticket = Ticket(
            name,
            "any.action",
            weight=load.weight,
            concurrency=load.concurrency,
            stored=load.stored,
        )
        if self.scheduler.enter(ticket, self.now):
            self._begin(ticket)

    def _begin(self, ticket: Ticket) -> None:
        name = ticket.tenant
        self.waits[name].append(self.now - ticket.entered)
        self.most[name] = max(self.most[name], self.scheduler.held(name).running)
        self._later(self.now + self.loads[name].cost(self._random), ticket)

    def _later(self, at: float, event: Ticket | str) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, event))
