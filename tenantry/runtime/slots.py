"""Who may run: the slots of one service in one instance, shared fairly by its tenants.

The algorithms are in :mod:`tenantry.fairness`; here they meet the clock, and what they decide
becomes an answer. Requests may be refused; messages of the journal only wait.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple, Protocol

import structlog

from tenantry.errors import DeadlineExceeded, RateLimited, Rejection, Unavailable
from tenantry.fairness.adaptive import Adaptive
from tenantry.fairness.breaker import Breakers, Verdict
from tenantry.fairness.overload import Overload
from tenantry.fairness.scheduler import Scheduler
from tenantry.fairness.tenant import Held
from tenantry.fairness.ticket import Ticket
from tenantry.runtime.stats import Stats
from tenantry.service.service import Service

BACKLOG = 16
"""Requests of one tenant that may wait, for each message that may run, …"""

_TENANTS = 4
"""… and of all tenants, in such queues."""

_SHED = 4
_LONGEST = 60.0

BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of `Snapshot.queueing`, seconds; the last bucket is what is more."""

log = structlog.get_logger("tenantry.dispatch")


class Waiter(Protocol):
    """What waits for a slot."""

    def left(self) -> float:
        """Seconds until it is too late for it."""
        ...

    def start(self, ticket: Ticket) -> None:
        """It has one now, until `Slots.leave`."""
        ...

    def refuse(self, ticket: Ticket, why: Rejection) -> None:
        """It gets none."""
        ...


class Snapshot(NamedTuple):
    """What goes on in a service of one instance, and what has been since it started."""

    limit: int
    running: int
    waiting: int
    """Requests; what the journal keeps is not counted."""
    at_once: int
    """Messages that found a slot free."""
    queueing: tuple[int, ...]
    """Messages that had to wait, by how long they did (`BOUNDS`)."""
    queueing_seconds: float
    """The sum of these waits."""
    refused: dict[str, int]
    """Requests by why they were refused: `queue`, `overload`, `deadline`, `breaker`."""
    tenants: dict[str, Held]
    """Those of whom something runs or waits."""
    open: tuple[str, ...]
    """Tenants whose circuit breaker is open."""


class Slots:
    """The slots of one service in one instance."""

    def __init__(
        self, service: Service, stats: Stats, *, clock: Callable[[], float] = perf_counter
    ) -> None:
        most = service.concurrency
        self.replicas = 1
        """How many instances live: a tenant's concurrency is divided over them."""
        self._service = service
        self._clock = clock
        self._scheduler = Scheduler(most)
        self._overload: dict[int, Overload] = {}
        """By weight: a heavy tenant's short waits don't help the light ones."""
        self._breakers = Breakers()
        self._adaptive = Adaptive(most) if service.adaptive else None
        self._at_once = 0
        self._queueing = [0] * (len(BOUNDS) + 1)
        self._queueing_seconds = 0.0
        self._stats = stats
        self._refused = stats.refused
        self._set_limit(most)

    def share(self, concurrency: int) -> int:
        """How much of a tenant's concurrency is for this instance; 0 for no bound."""
        return max(1, concurrency // self.replicas) if concurrency else 0

    def enter(self, ticket: Ticket) -> bool:
        """Take a message; True where it has a slot at once, else its waiter is told later.

        Raises the :class:`Rejection` that a request gets instead. Never for one of the journal.
        """
        now = self._clock()
        if self._breakers and not ticket.stored:
            self._break(ticket, now)
        if self._scheduler.enter(ticket, now):
            self._at_once += 1
            self._queued(0.0)
            return True
        if not ticket.stored and (why := self._too_many(ticket, now)) is not None:
            if ticket.state == "waiting":
                self._scheduler.withdraw(ticket)
            if self._breakers:
                self._breakers.done(ticket.tenant, Verdict.NEITHER, now)
            raise why
        self._dispatch(now)
        return False

    def leave(
        self, ticket: Ticket, verdict: Verdict = Verdict.NEITHER, *, ran: bool = True
    ) -> None:
        """A message has ended; others begin in its place."""
        now, scheduler = self._clock(), self._scheduler
        if self._adaptive is not None and ran:
            took, full = now - ticket.began, scheduler.full
            if self._adaptive.done(ticket.action, took, now, full=full):
                self._set_limit(self._adaptive.limit)
                log.info("slots", service=self._service.name, limit=scheduler.limit)
        scheduler.leave(ticket, now, ran=ran)
        if not ticket.stored and (self._breakers or verdict is Verdict.FAILED):
            self._judge(ticket, verdict, now)
        if scheduler.waits:
            self._dispatch(now)

    async def hold(self, tenant: str, action: str) -> Ticket:
        """Take a slot for a tenant, when there is one; give it to `leave` in the end."""
        ticket = Ticket(tenant, action, NOBODY, stored=True)
        if not self.enter(ticket):
            await self.wait(ticket)
        return ticket

    async def wait(self, ticket: Ticket) -> None:
        """Wait for the slot of a message of the journal that did not get one at once."""
        if ticket.state == "running":
            return
        waiter = ticket.item = _Future()
        try:
            await waiter.future
        except asyncio.CancelledError:
            if ticket.state == "waiting":
                self._scheduler.withdraw(ticket)
            else:
                self.leave(ticket, Verdict.NEITHER, ran=False)
            raise

    def refuse_all(self, tickets: list[Ticket], why: Callable[[], Rejection]) -> None:
        """Refuse these, where they still wait."""
        for ticket in tickets:
            if ticket.state == "waiting":
                self._scheduler.withdraw(ticket)
                self._refuse(ticket, "stopping", why())

    def held(self, tenant: str) -> int:
        """Count the messages of a tenant that run or wait here."""
        return sum(self._scheduler.held(tenant))

    def snapshot(self) -> Snapshot:
        """What goes on. Costs as much as there are tenants of whom something is here."""
        scheduler = self._scheduler
        return Snapshot(
            limit=scheduler.limit,
            running=scheduler.running,
            waiting=scheduler.waiting.requests,
            at_once=self._at_once,
            queueing=tuple(self._queueing),
            queueing_seconds=self._queueing_seconds,
            refused=dict(self._refused),
            tenants=scheduler.tenants(),
            open=tuple(self._breakers.open(self._clock())),
        )

    # --- inside --------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        scheduler = self._scheduler
        while (ticket := scheduler.next(now)) is not None:
            waited = now - ticket.entered
            if ticket.expires <= now + scheduler.work.best(ticket.action):
                scheduler.leave(ticket, now, ran=False)
                self._refuse(ticket, "deadline", self._too_late())
                continue
            self._queueing[bisect_left(BOUNDS, waited)] += 1
            self._queueing_seconds += waited
            self._queued(waited)
            if not ticket.stored:
                self._shed(ticket.weight, waited, now)
            ticket.item.start(ticket)

    def _set_limit(self, limit: int) -> None:
        self._scheduler.limit = self._stats.slots = limit
        self._scheduler.headroom = limit // 8

    def _queued(self, seconds: float) -> None:
        if self._stats.queued is not None:
            self._stats.queued(seconds)

    def _shed(self, weight: int, waited: float, now: float) -> None:
        """Where all of a weight have waited for too long for some time, refuse a few.

        Those of the lowest weight first, up to this one.
        Only a few for each one served: so it ends as soon as those that are served wait less.
        """
        scheduler, usual = self._scheduler, self._scheduler.work.mean
        if (overload := self._overload.get(weight)) is None:
            overload = self._overload[weight] = Overload()
        if scheduler.waiting.of_weight(weight) < 2:
            overload.calm()  # a tenant that waits for itself alone fills its own queue
            return
        if not overload.waited(waited, now, usual):
            return
        since = now - overload.target(usual)
        for _ in range(_SHED):
            ticket = scheduler.shed(since=since, below=weight + 1)
            if ticket is None:
                return
            self._refuse(ticket, "overload", self._overloaded())

    def _too_many(self, ticket: Ticket, now: float) -> Rejection | None:
        """Why a request that has joined its queue can't stay there."""
        ticket.expires = now + ticket.item.left()
        scheduler, limit = self._scheduler, self._service.concurrency * BACKLOG
        if ticket.expires <= now + scheduler.work.best(ticket.action):
            self._refused["deadline"] += 1
            return self._too_late()
        if scheduler.requests(ticket.tenant) > limit:
            self._refused["queue"] += 1
            return self._full(ticket, now)
        if scheduler.waiting.requests > limit * _TENANTS:
            victim = scheduler.shed(since=math.inf, below=ticket.weight + 1)
            if victim is None or victim is ticket:  # a lone one; its own queue has the others
                self._refused["overload"] += 1
                return self._overloaded()
            self._refuse(victim, "overload", self._overloaded())
        return None

    def _refuse(self, ticket: Ticket, reason: str, why: Rejection) -> None:
        self._refused[reason] += 1
        if self._breakers:
            self._breakers.done(ticket.tenant, Verdict.NEITHER, self._clock())
        ticket.item.refuse(ticket, why)

    def _break(self, ticket: Ticket, now: float) -> None:
        wait = self._breakers.refused(ticket.tenant, now)
        if wait:
            self._refused["breaker"] += 1
            raise Unavailable(
                f"the last calls of {self._service.name} all failed for this tenant",
                hint="they are tried one at a time until one succeeds",
                retry_after=wait,
            )

    def _judge(self, ticket: Ticket, verdict: Verdict, now: float) -> None:
        if self._breakers.done(ticket.tenant, verdict, now):
            log.warning(
                "breaker open",
                service=self._service.name,
                tenant=ticket.tenant,
                action=ticket.action,
            )

    def _full(self, ticket: Ticket, now: float) -> Rejection:
        drained = self._scheduler.drained(ticket.tenant, now)
        if not ticket.tenant:  # not of a tenant: the control plane's own
            return Unavailable(f"{self._service.name} is busy", retry_after=1.0)
        return RateLimited(
            f"too many requests of this tenant wait for {self._service.name}",
            hint="send no more at once than are answered",
            retry_after=min(max(drained, 0.001), _LONGEST),
            violated_policies=["queue"],
        )

    def _overloaded(self) -> Rejection:
        scheduler = self._scheduler
        drained = scheduler.waiting.requests * scheduler.work.mean / scheduler.limit
        return Unavailable(
            f"{self._service.name} is overloaded", retry_after=min(max(drained, 1.0), _LONGEST)
        )

    def _too_late(self) -> Rejection:
        return DeadlineExceeded(f"the deadline would be over before {self._service.name} is done")


class _Future:
    """A task that waits."""

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def left(self) -> float:
        return math.inf

    def start(self, ticket: Ticket) -> None:  # noqa: ARG002  (a Waiter)
        if not self.future.done():
            self.future.set_result(None)

    def refuse(self, ticket: Ticket, why: Rejection) -> None:
        """Never: the journal has the message."""


class _Nobody:
    """Nobody waits yet."""

    def left(self) -> float:
        return math.inf

    def start(self, ticket: Ticket) -> None:
        """Whoever enters the ticket sees that it runs."""

    def refuse(self, ticket: Ticket, why: Rejection) -> None:
        """Never: the journal has the message."""


NOBODY = _Nobody()
"""What stands for a message of the journal until it has to wait for its slot."""
