"""Limits that routers share: the ledger's decisions, and its orders to the store.

Nothing in the path of a message waits for the store. Orders of one turn of the loop go out in one
round trip; settlements, which nobody waits for, are gathered for longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from tenantry import tasks
from tenantry.errors import SetupError
from tenantry_workers.router.limits.account import Account, Parked
from tenantry_workers.router.limits.counters import Counters
from tenantry_workers.router.limits.ledger import Ledger, Order
from tenantry_workers.router.limits.meter import Decision, Level, Meter, Resume
from tenantry_workers.router.limits.store import CONNECTIONS, Failures, Reply, Store

PATIENCE = 0.005
"""Longest that a message is parked, seconds."""

SOON = 0.001
"""For how long settlements are gathered when half of the credit is used."""

LATER = 0.1
"""For how long they are gathered otherwise."""

_TURNS, _TURN = 4, 0.0002

_CALL = 0.4
"""A call without an answer for so long is given up."""

_BATCH = 200
"""Orders in one round trip."""

_PROBES = (0.02, 1.0)
"""Shortest and longest time between two probes of a store that is away."""

_HICCUP = 0.1
"""A store that is away for less is not logged, seconds between probes."""

_TICK = 0.1
_SWEEP = 500

log = structlog.get_logger("tenantry.limits")


class SharedLimiter:
    """See :class:`~tenantry_workers.router.limits.meter.Limiter`.

    `routers` says how many share the limits now; `patience` is the longest parking, seconds.
    """

    def __init__(
        self, store: Store, routers: Callable[[], int] = lambda: 1, *, patience: float | None = None
    ) -> None:
        self.counters = Counters()
        self._store = store
        self._routers = routers
        self._patience = PATIENCE if patience is None else patience
        self._ledger = Ledger(self._due, self.counters)
        self._soon: list[Account] = []
        self._late: list[Account] = []
        self._timers: dict[str, asyncio.Handle] = {}
        self._waiting: deque[Parked] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._gone = asyncio.Event()
        self._left = 0.0
        self._why = ""
        self._checked = False

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect; where the store does not answer, begin without it.

        Raises :class:`~tenantry.errors.SetupError` for a store that won't do.
        """
        self._ledger.routers = max(1, self._routers())
        try:
            async with asyncio.timeout(1.0):
                await self._store.check()
                self._checked = True
                await self._store.warm()
        except Failures as error:
            self._why = _reason(error)
            self._leave()
        self._tasks = [asyncio.create_task(self._probe()), asyncio.create_task(self._tend())]

    async def stop(self) -> None:
        """Settle what is owed, and close."""
        await tasks.end(*self._tasks)
        if not self._ledger.away:
            self._flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CALL):
                    while self._calls:
                        await asyncio.wait(set(self._calls))
                        self._flush()
        for timer in self._timers.values():
            timer.cancel()
        await tasks.end(*self._calls)
        with contextlib.suppress(*Failures):
            await self._store.close()

    @property
    def away(self) -> bool:
        """Whether it decides without the store."""
        return self._ledger.away

    # --- messages ------------------------------------------------------------------------------

    def take(self, tenant: str, meters: Sequence[Meter], now: float) -> Decision | None:
        """Decide in memory, or None."""
        return self._ledger.take(tenant, meters, now)

    def park(self, tenant: str, meters: Sequence[Meter], resume: Resume) -> None:
        """Decide when the store has answered, or after `patience` without it."""
        now = time.monotonic()
        if self._ledger.away:
            resume(self._ledger.share(tenant, meters, now))
            return
        parked = Parked(meters, resume, now)
        self._ledger.park(self._ledger.account(tenant), parked)
        self._waiting.append(parked)
        self._at("flush", 0.0, self._flush)
        self._at("overdue", self._patience, self._overdue)

    def level(self, tenant: str, meter: Meter, now: float) -> Level:
        """What the store had left when last asked, less what was admitted here since."""
        return self._ledger.level(tenant, meter, now)

    def _overdue(self, turns: int = _TURNS) -> None:
        """Give the store up when a message has been parked for too long.

        Not before this loop has had some turns: where it is busy, the answer may be there unread.
        """
        now = time.monotonic()
        while self._waiting and self._waiting[0].done:
            self._waiting.popleft()
        if not self._waiting:
            return
        left = self._waiting[0].since + self._patience - now
        if left > 0:
            self._at("overdue", left, self._overdue)
        elif turns:
            self._at("overdue", _TURN, partial(self._overdue, turns - 1))
        else:
            self._why = "it is late"
            self._leave()

    # --- orders --------------------------------------------------------------------------------

    def _due(self, account: Account, urgent: bool) -> None:
        account.due = True
        if urgent:
            self._soon.append(account)
            self._at("soon", SOON, self._flush)
        else:
            self._late.append(account)
            self._at("later", LATER, self._gather)

    def _gather(self) -> None:
        self._soon += self._late
        self._late.clear()
        self._flush()

    def _flush(self) -> None:
        """Send what is due, in as few round trips as there may be."""
        if self._ledger.away:
            return
        now = time.monotonic()
        while self._soon and len(self._calls) < CONNECTIONS:
            accounts, self._soon = self._soon[:_BATCH], self._soon[_BATCH:]
            orders = [order for each in accounts if (order := self._ledger.order(each, now))]
            if orders:
                call = asyncio.create_task(self._call(orders))
                self._calls.add(call)
                call.add_done_callback(self._called)

    async def _call(self, orders: list[Order]) -> None:
        self.counters.calls += 1
        self.counters.orders += len(orders)
        replies: list[Reply] | None = None
        try:
            async with asyncio.timeout(max(_CALL, self._patience)):
                replies = await self._store.lease(orders)
        except Failures as error:
            self._why = _reason(error)
            return
        finally:
            if replies is None:
                self._lost(orders)
        now = time.monotonic()
        for order, reply in zip(orders, replies, strict=True):
            self._ledger.apply(order, reply.answers, now, late=reply.late)

    def _lost(self, orders: list[Order]) -> None:
        self.counters.failures += 1
        for order in orders:
            self._ledger.lose(order)
        if not self._ledger.away:
            self._leave()

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            log.error("lease failed", exc_info=error)
        if self._soon:
            self._flush()

    def _at(self, name: str, delay: float, do: Callable[[], None]) -> None:
        """Do something once, after a delay, unless it is planned already."""
        if name in self._timers:
            return

        def run() -> None:
            del self._timers[name]
            do()

        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(delay, run) if delay else loop.call_soon(run)

    # --- while the store is away ---------------------------------------------------------------

    def _leave(self) -> None:
        self._left = time.monotonic()
        self._ledger.routers = max(1, self._routers())
        self.counters.aways += 1
        self._ledger.leave(self._left)
        self._waiting.clear()
        self._gone.set()

    async def _probe(self) -> None:
        """Ask a store that is away whether it is back; a hiccup is not worth a line in the log."""
        while True:
            await self._gone.wait()
            delay, longest = _PROBES
            told = False
            while not await self._is_back():
                if not told and delay > _HICCUP:
                    told = True
                    log.warning(
                        "store is away",
                        store=self._store.name,
                        why=self._why,
                        routers=self._ledger.routers,
                    )
                await asyncio.sleep(delay)
                delay = min(delay * 2, longest)
            self._gone.clear()
            now = time.monotonic()
            self.counters.away += now - self._left
            self._ledger.come_back(now)
            if told:
                log.info("store is back", store=self._store.name, away=round(now - self._left, 3))
            self._flush()

    async def _is_back(self) -> bool:
        try:
            async with asyncio.timeout(0.8):
                if not self._checked:
                    await self._store.check()
                    self._checked = True
                if await self._store.probe() > self._patience:
                    self._why = "it is late"
                    return False
                await self._store.warm()
                return True
        except SetupError as error:
            self._why = str(error)
            return False
        except Failures:
            return False

    async def _tend(self) -> None:
        """Hear how many routers there are; forget idle tenants, a few at a time."""
        tenants: list[str] = []
        while True:
            await asyncio.sleep(_TICK)
            self._ledger.routers = max(1, self._routers())
            if not tenants:
                tenants = list(self._ledger.accounts)
            some, tenants = tenants[-_SWEEP:], tenants[:-_SWEEP]
            self._ledger.forget(some, time.monotonic())

    def __len__(self) -> int:
        return len(self._ledger.accounts)


def _reason(error: BaseException) -> str:
    """Why a call failed, without what may be secret: messages of Redis hold no credentials."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return f"{type(error).__name__}: {error}"[:200]
