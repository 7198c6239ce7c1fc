"""Whether a tenant's commands still fit into what its plan allows it in the journal.

The tenants worker counts what is there; a router adds what it has let through since then.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from tenantry import clock
from tenantry.bus import Bucket, Bus, Table
from tenantry.errors import QuotaExceeded
from tenantry.messages import Plan, Volume, VolumeProgress
from tenantry.volumes import BUCKET, NAME, PROGRESS, room_at, total

_MARGIN = 0.5
"""How far the clocks of routers and the tenants worker may be apart, seconds."""

_GRAIN = 0.1
_MOST = 256


class _Known:
    """A tenant's bytes: those counted, summed up until one of them goes, and those since then."""

    __slots__ = ("counted", "recent", "row", "stale")

    def __init__(self) -> None:
        self.row: Volume | None = None
        self.counted = 0
        self.stale = 0.0
        self.recent: deque[tuple[float, int]] = deque()


class Volumes:
    """The volumes of all tenants, as one router sees them."""

    def __init__(self, bus: Bus, *, clock: Callable[[], float] = clock.now) -> None:
        self.rows = Table(Bucket(bus, BUCKET, Volume), filter="*")
        self.progress = Table(Bucket(bus, BUCKET, VolumeProgress), filter=PROGRESS)
        self._clock = clock
        self._tenants: dict[str, _Known] = {}

    async def start(self) -> None:
        """Load them, then follow the changes."""
        await self.rows.start()
        await self.progress.start()

    async def stop(self) -> None:
        """Follow no more."""
        await self.rows.stop()
        await self.progress.stop()

    def take(self, tenant: str, plan: Plan, size: int) -> None:
        """Count a command of `size` bytes; raises :class:`QuotaExceeded` where it does not fit."""
        now = self._clock()
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Known()
        used = self._counted(tenant, known, now) + self._recent(known)
        if used + size > plan.journal_bytes:
            raise self._refusal(known, plan, size, now)
        if known.recent and (now - known.recent[-1][0] < _GRAIN or len(known.recent) >= _MOST):
            known.recent[-1] = (known.recent[-1][0], known.recent[-1][1] + size)
        else:
            known.recent.append((now, size))

    def forget_idle(self) -> None:
        """Drop what nothing was added to since it was counted."""
        self._tenants = {
            name: known for name, known in self._tenants.items() if self._recent(known)
        }

    def _counted(self, tenant: str, known: _Known, now: float) -> int:
        row = self.rows.get(tenant)
        if row is not known.row or now >= known.stale:
            before = known.row.ever if known.row is not None else 0
            self._settle(known, row.ever - before if row is not None else 0)
            known.row = row
            known.counted = total(row, now) if row is not None else 0
            ends = (until for until in row.parts if until > now) if row is not None else ()
            known.stale = min(ends, default=math.inf)
        return known.counted

    def _settle(self, known: _Known, grown: int) -> None:
        """Take what was counted since the last time for ours: the oldest of what we let through.

        Some of it may be others', who are then let through for ours; but nothing counts twice.
        """
        while known.recent and grown > 0:
            at, size = known.recent.popleft()
            if size > grown:
                known.recent.appendleft((at, size - grown))
            grown -= size

    def _recent(self, known: _Known) -> int:
        progress = self.progress.get(PROGRESS)
        sure = progress.at - _MARGIN if progress is not None else 0.0
        while known.recent and known.recent[0][0] < sure:
            known.recent.popleft()
        return sum(size for _, size in known.recent)

    def _refusal(self, known: _Known, plan: Plan, size: int, now: float) -> QuotaExceeded:
        limit = plan.journal_bytes
        end = room_at(known.row or Volume(), limit - size, now) if size <= limit else None
        return QuotaExceeded(
            f"the {limit} bytes that the plan allows in the journal are used up",
            hint="requests still go; older messages make room when their time is over",
            # None is left of what never goes: then there is no better guess than its whole life.
            retry_after=max(1.0, end - now) if end is not None else float(plan.retention),
            violated_policies=[NAME],
            plan=plan.name,
            quota=limit,
            window=plan.retention,
        )
