"""How many messages a tenant may send in a day or month, exactly, over all routers.

The count is the tenant's row in the KV bucket `usage`, changed by compare-and-set. A router leases
some seconds' worth of it at a time and decides out of that in memory; near the end it leases one by
one. So the sum of all leases never passes the limit, whatever dies or is cut off, and there is
nothing to rebuild: docs/decisions/0018-quotas-in-kv.md.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from tenantry import clock
from tenantry.bus import Bucket, Bus
from tenantry.errors import JetStreamError, Rejection
from tenantry.messages import Count, Quota, Usage
from tenantry.plans import Window, window_of

SPAN = 5.0
"""A lease is what the tenant uses in so many seconds."""

_IDLE = 5.0
_FIRST = 4
_AGAIN = 1.0
_PATIENCE = 2.0
_BOUND = 10_000
"""Messages of one tenant that may wait for a lease."""

log = structlog.get_logger("tenantry.router")


class Standing(NamedTuple):
    """Where a tenant stands in one quota."""

    quota: Quota
    left: int
    """Messages until it is refused; other routers may use some of them."""
    reset: int
    """Seconds until the next day or month."""
    window: int
    """Length of this one, seconds."""

    @property
    def used(self) -> int:
        """Messages so far, what other routers hold counted as used."""
        return self.quota.limit - self.left


class Verdict(NamedTuple):
    """What the quotas say of one message."""

    refused: Standing | None = None
    """The most specific quota that is used up."""
    tightest: Standing | None = None
    """The one of which the least is left."""
    between: tuple[Standing, ...] = ()
    """Those between soft and hard."""
    shadowed: tuple[str, ...] = ()
    """Names of those that would have refused it if they were enforced."""
    away: bool = False
    """Refused because the count can't be asked for."""


Resume = Callable[[Verdict], None]


class _Slice:
    """What this router holds of one quota of one tenant."""

    __slots__ = ("at", "heard", "left", "since", "total", "unreported", "window")

    def __init__(self, window: str, now: float) -> None:
        self.window = window
        self.left = 0
        self.unreported = 0
        self.total: int | None = None
        """All leases of the window, as last heard; None before the first answer."""
        self.heard = self.since = self.at = now


class _Tenant:
    __slots__ = ("asking", "parked", "slices")

    def __init__(self) -> None:
        self.slices: dict[str, _Slice] = {}
        self.parked: deque[tuple[Sequence[Quota], Resume]] = deque()
        self.asking = False


class Quotas:
    """The quotas of all tenants, as one router sees them."""

    def __init__(
        self,
        bus: Bus,
        *,
        routers: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = clock.now,
    ) -> None:
        self._bucket = Bucket(bus, "usage", Usage)
        self._routers = routers
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._windows: dict[str, Window] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.leases = 0

    # --- deciding ------------------------------------------------------------------------------

    def take(self, tenant: str, quotas: Sequence[Quota]) -> Verdict | None:
        """Count one message, most specific quota last; None where a lease has to be asked for."""
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Tenant()
        if known.parked:
            return None
        return self._decide(tenant, known, quotas)

    def park(self, tenant: str, quotas: Sequence[Quota], resume: Resume) -> None:
        """Decide later, in order."""
        known = self._tenants[tenant]
        if len(known.parked) >= _BOUND:
            resume(Verdict(away=True))
            return
        known.parked.append((quotas, resume))
        self._ask(tenant, known, quotas)

    def _decide(self, tenant: str, known: _Tenant, quotas: Sequence[Quota]) -> Verdict | None:
        now = self._clock()
        refused, ask, again = None, False, False
        shadowed: tuple[str, ...] = ()
        for quota in quotas:
            part = self._slice(known, quota, now)
            if part.left > 0:
                continue
            if part.total is None or part.total < quota.limit:
                ask = True
            elif quota.shadow:
                shadowed += (quota.name,)
            else:
                refused = self._standing(quota, part, now)
                if part.unreported > 0 or now - part.heard > _AGAIN:
                    again = True
        if refused is not None:
            if again:  # to report the last ones; and another router may have given some back
                self._ask(tenant, known, quotas)
            return Verdict(refused=refused, shadowed=shadowed)
        if ask:
            return None
        return self._count(tenant, known, quotas, now, shadowed)

    def _count(
        self,
        tenant: str,
        known: _Tenant,
        quotas: Sequence[Quota],
        now: float,
        shadowed: tuple[str, ...],
    ) -> Verdict:
        low, standings = False, []
        for quota in quotas:
            part = known.slices[quota.name]
            if quota.name not in shadowed:
                part.left -= 1
            part.unreported += 1
            part.at = now
            low = low or part.left < self._size(part, now) // 2
            if not quota.shadow:
                standings.append(self._standing(quota, part, now))
        if low:
            self._ask(tenant, known, quotas)
        return Verdict(
            tightest=min(standings, key=lambda each: each.left, default=None),
            between=tuple(each for each in standings if each.used > each.quota.threshold),
            shadowed=shadowed,
        )

    def _size(self, part: _Slice, now: float) -> int:
        return max(0, int(part.unreported / max(now - part.since, 0.5) * SPAN))

    def _slice(self, known: _Tenant, quota: Quota, now: float) -> _Slice:
        """What is held of a quota; nothing yet of a new day or month."""
        window = self._window(quota.period, now).name
        part = known.slices.get(quota.name)
        if part is None or part.window < window:
            part = known.slices[quota.name] = _Slice(window, now)
        return part

    def _window(self, period: str, now: float) -> Window:
        window = self._windows.get(period)
        if window is None or now >= window.end:
            window = self._windows[period] = window_of(period, now)
        return window

    def _standing(self, quota: Quota, part: _Slice, now: float) -> Standing:
        left = quota.limit - (part.total or 0) + part.left
        window = self._window(quota.period, now)
        reset = max(1, math.ceil(window.end - now))
        return Standing(quota, max(0, left), reset, round(window.end - window.begin))

    # --- leasing -------------------------------------------------------------------------------

    def _ask(self, tenant: str, known: _Tenant, quotas: Sequence[Quota]) -> None:
        if known.asking:
            return
        known.asking = True
        task = asyncio.create_task(self._lease(tenant, known, quotas), name=f"lease {tenant}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _lease(self, tenant: str, known: _Tenant, quotas: Sequence[Quota]) -> None:
        leased = False
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._change(tenant, known, quotas)
                leased = True
        except (TimeoutError, Rejection, JetStreamError) as error:
            log.warning("no lease of a quota", tenant=tenant, why=str(error) or "no answer")
            while known.parked:
                known.parked.popleft()[1](Verdict(away=True))
        finally:
            known.asking = False
        self._settle(tenant, known)
        parts = [known.slices.get(quota.name) for quota in quotas]
        if leased and any(part and part.left <= 0 < part.unreported for part in parts):
            self._ask(tenant, known, quotas)  # the last ones, which nothing else would report

    def _settle(self, tenant: str, known: _Tenant) -> None:
        """Decide what is parked, as far as it goes; ask again for the rest."""
        while known.parked:
            quotas, resume = known.parked[0]
            verdict = self._decide(tenant, known, quotas)
            if verdict is None:
                self._ask(tenant, known, quotas)
                return
            known.parked.popleft()
            resume(verdict)

    async def _change(self, tenant: str, known: _Tenant, quotas: Sequence[Quota]) -> None:
        """One lease of each of these quotas that runs low, and what was used since the last."""
        now = self._clock()
        parts = {quota.name: (quota, self._slice(known, quota, now)) for quota in quotas}
        for parked, _ in known.parked:
            for quota in parked:
                parts.setdefault(quota.name, (quota, self._slice(known, quota, now)))
        reported = {name: part.unreported for name, (_, part) in parts.items()}
        wants = {name: self._want(known, quota, part, now) for name, (quota, part) in parts.items()}
        granted: dict[str, int] = {}

        def change(row: Usage | None) -> Usage:
            counts = dict(row.counts) if row is not None else {}
            for name, (quota, part) in parts.items():
                count = counts.get(name, Count())
                if count.window < part.window:
                    count = Count(window=part.window)
                elif count.window > part.window:  # our clock is late: go by the row's
                    part.window, part.left, part.unreported = count.window, 0, 0
                    reported[name] = 0
                rest = max(0, quota.limit - count.leased)
                few = max(1, rest // (4 * max(1, self._routers())))
                granted[name] = min(wants[name], few, rest)
                leased = count.leased + granted[name]
                counts[name] = Count(
                    window=count.window,
                    leased=leased,
                    used=max(0, min(leased, count.used + reported[name])),
                    told=count.told,
                )
            return Usage(counts=counts)

        row = (await self._bucket.change(tenant, change)).value
        assert row is not None  # noqa: S101  (`change` makes one)
        self.leases += 1
        for name, (_, part) in parts.items():
            part.left += granted[name]
            part.total = row.counts[name].leased
            part.unreported -= reported[name]
            part.heard = part.since = now

    def _want(self, known: _Tenant, quota: Quota, part: _Slice, now: float) -> int:
        waiting = sum(1 for quotas, _ in known.parked if quota in quotas)
        if part.total is None:
            return max(waiting, _FIRST)
        return max(0, self._size(part, now) + waiting - part.left) or (0 if part.left else 1)

    def refund(self, tenant: str, quotas: Sequence[Quota], verdict: Verdict) -> None:
        """Take back a count: the message was refused for something else."""
        known = self._tenants.get(tenant)
        for quota in quotas if known is not None else ():
            part = known.slices.get(quota.name)  # type: ignore[union-attr]
            if part is not None:
                part.unreported -= 1  # below 0 where it was reported already
                part.left += quota.name not in verdict.shadowed

    # --- giving back ---------------------------------------------------------------------------

    async def give_back(self, *, idle: float = _IDLE) -> None:
        """Report what was used, and return what was not: all that lies idle for `idle` seconds.

        Of what is used slowly, and was not reported for as long, no more is kept than it needs.
        """
        now = self._clock()
        for tenant, known in list(self._tenants.items()):
            if known.asking or known.parked:
                continue
            unused = {n: p for n, p in known.slices.items() if now - p.at >= idle}
            slowly = {
                name: part
                for name, part in known.slices.items()
                if name not in unused and part.unreported and now - part.since >= idle
            }
            try:
                if any(part.left or part.unreported for part in unused.values()) or slowly:
                    await self._return(tenant, known, unused, slowly)
            except (Rejection, JetStreamError) as error:
                log.warning("a lease was not given back", tenant=tenant, why=str(error))
                return
            if len(unused) == len(known.slices) and not known.asking and not known.parked:
                self._tenants.pop(tenant, None)

    async def _return(
        self,
        tenant: str,
        known: _Tenant,
        unused: dict[str, _Slice],
        slowly: dict[str, _Slice],
    ) -> None:
        now, parts = self._clock(), unused | slowly
        backs: dict[str, tuple[int, int]] = {}
        for name, part in parts.items():  # before it is written: nobody may use it meanwhile
            keep = min(part.left, self._size(part, now)) if name in slowly else 0
            backs[name] = part.left - keep, part.unreported
            part.left, part.unreported = keep, 0
        for part in unused.values():
            part.total = None

        def change(row: Usage | None) -> Usage:
            counts = dict(row.counts) if row is not None else {}
            for name, (left, used) in backs.items():
                count = counts.get(name)
                if count is not None and count.window == parts[name].window:
                    leased = max(0, count.leased - left)
                    counts[name] = Count(
                        window=count.window,
                        leased=leased,
                        used=max(0, min(leased, count.used + used)),
                        told=count.told,
                    )
            return Usage(counts=counts)

        known.asking = True  # one change at a time: else the older of two totals might stay
        try:
            row = (await self._bucket.change(tenant, change)).value or Usage()
            for name, part in slowly.items():
                part.heard = part.since = now
                part.total = row.counts.get(name, Count()).leased
        except BaseException:
            for name, (_, used) in backs.items():
                parts[name].unreported += used  # it may count twice, never too little
            raise
        finally:
            known.asking = False
            self._settle(tenant, known)

    async def quiet(self) -> None:
        """Return when no lease is under way; a cancelled one might have been taken."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Give back everything."""
        await self.quiet()
        for known in self._tenants.values():
            while known.parked:
                known.parked.popleft()[1](Verdict(away=True))
        await self.give_back(idle=0.0)
