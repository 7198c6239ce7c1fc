"""What one instance counts by tenant: a dictionary look-up and a few additions for each message.

Rates and latencies are of a window that moves: the one that runs, and what of the last one it does
not cover yet. A tenant that is idle for a minute is forgotten; those for whom there is no room are
counted in one tally, so that memory has a bound whoever sends.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import islice
from time import monotonic

from tenantry.errors import BY_CODE
from tenantry.messages.tallies import LATENCIES, TallyColumn, TenantTally

WINDOW = 10.0
"""Seconds of a window."""
IDLE = 60.0
"""A tenant of whom nothing comes for so long is forgotten, seconds."""
MOST = 20_000
"""Tenants that are counted apart at most."""
OTHERS = "*"
"""The tenants for whom there was no room."""

_SLICE = 250
_PAUSE = 5.0
"""Where there is no room: seconds between two looks for who is idle."""
_BUCKETS = len(LATENCIES) + 1
_LIMITED = frozenset(code for code, kind in BY_CODE.items() if kind.status == 429)


class Tally:
    """One tenant in one instance."""

    __slots__ = (
        "_before",
        "_born",
        "count",
        "ends",
        "errors",
        "failed",
        "handled",
        "latency",
        "limited",
        "refused",
        "running",
        "sent",
        "slow",
        "tenant",
    )

    def __init__(self, tenant: str, now: float) -> None:
        self.tenant = tenant
        self.running = 0
        self.handled = 0
        self.failed = 0
        self.refused: dict[str, int] = {}
        self.count = self.limited = self.errors = self.sent = 0
        self.latency: list[int] | None = None
        self.slow: list[int] | None = None
        """The latencies of the last window."""
        self._before = (0, 0, 0, 0)
        self._born = now
        self.ends = now + WINDOW
        """When the window ends."""

    def turn(self, now: float) -> None:
        """Begin the window that `now` is in, where the old one is over."""
        over = now - self.ends
        if over < 0:
            return
        if over < WINDOW:
            self._before = (self.count, self.limited, self.errors, self.sent)
            self.slow = self.latency
            self.ends += WINDOW
        else:  # nothing of it counts any more
            self._before, self.slow = (0, 0, 0, 0), None
            self._born, self.ends = now, now + WINDOW
        self.count = self.limited = self.errors = self.sent = 0
        self.latency = None

    def idle(self, now: float) -> bool:
        """Whether it can be forgotten."""
        return not self.running and now - self.ends > IDLE - WINDOW

    def rates(self, now: float) -> tuple[float, float, float, float]:
        """Messages, refusals for a limit, errors and what was sent, each a second.

        Changes nothing.
        """
        before, current = self._before, (self.count, self.limited, self.errors, self.sent)
        left = self.ends - now
        if left <= 0:
            before, current, left = current, (0, 0, 0, 0), left + WINDOW
        part = max(0.0, left) / WINDOW
        span = min(WINDOW, max(1.0, now - self._born))
        first, second, third, fourth = (
            (old * part + new) / span for old, new in zip(before, current, strict=True)
        )
        return first, second, third, fourth

    def latencies(self) -> tuple[int, ...]:
        """The buckets of both windows."""
        both = [each for each in (self.latency, self.slow) if each is not None]
        return tuple(map(sum, zip(*both, strict=True)))

    def told(self, now: float) -> TenantTally:
        """What is said of it."""
        self.turn(now)
        rate, limited, errors, sent = self.rates(now)
        return TenantTally(
            tenant=self.tenant,
            rate=round(rate, 3),
            limited=round(limited, 3),
            errors=round(errors, 3),
            sent=round(sent, 3),
            running=self.running,
            handled=self.handled,
            refused=dict(self.refused),
            failed=self.failed,
            latency=self.latencies(),
        )


class TallyBook:
    """The tallies of one instance."""

    def __init__(self, *, most: int = MOST, clock: Callable[[], float] = monotonic) -> None:
        self._tallies: dict[str, Tally] = {}
        self._most = most
        self._clock = clock
        self._swept = clock()

    def __len__(self) -> int:
        return len(self._tallies)

    # --- for each message ----------------------------------------------------------------------

    def admitted(self, tenant: str) -> None:
        """A router has let a message in."""
        now = self._clock()
        tally = self._tallies.get(tenant) or self._new(tenant, now)
        if now >= tally.ends:
            tally.turn(now)
        tally.count += 1
        tally.handled += 1

    def refused(self, tenant: str, code: str) -> None:
        """A router has refused a message."""
        now = self._clock()
        tally = self._tallies.get(tenant) or self._new(tenant, now)
        if now >= tally.ends:
            tally.turn(now)
        if code in _LIMITED:
            tally.limited += 1
        else:
            tally.errors += 1
        tally.refused[code] = tally.refused.get(code, 0) + 1

    def began(self, tenant: str) -> Tally:
        """A service has a message in hand: until :meth:`left`, which must follow."""
        tally = self._tallies.get(tenant) or self._new(tenant, self._clock())
        tally.running += 1
        return tally

    def ended(self, tally: Tally, seconds: float, *, failed: bool) -> None:
        """A handler has ended after so long."""
        now = self._clock()
        if now >= tally.ends:
            tally.turn(now)
        tally.count += 1
        tally.handled += 1
        if failed:
            tally.errors += 1
            tally.failed += 1
        if tally.latency is None:
            tally.latency = [0] * _BUCKETS
        tally.latency[bisect_left(LATENCIES, seconds)] += 1

    def sent(self, tenant: str, count: int) -> None:
        """A handler has left so many messages of a tenant."""
        now = self._clock()
        tally = self._tallies.get(tenant) or self._new(tenant, now)
        if now >= tally.ends:
            tally.turn(now)
        tally.sent += count

    def left(self, tally: Tally) -> None:
        """A message is no longer in hand, however it went."""
        tally.running -= 1

    # --- for who asks --------------------------------------------------------------------------

    def of(self, tenants: Iterable[str]) -> list[TenantTally]:
        """What is known of these."""
        now = self._clock()
        found = (self._tallies.get(tenant) for tenant in tenants)
        return [tally.told(now) for tally in found if tally is not None]

    async def first(self, by: TallyColumn, limit: int) -> list[TenantTally]:
        """The first `limit` tenants by a column, the highest first; none that has nothing there.

        It goes through all of them in slices: no message has to wait for it.
        """
        now, key = self._clock(), _COLUMNS[by]
        best: list[tuple[float, str, Tally]] = []
        tallies = iter(list(self._tallies.values()))
        while part := list(islice(tallies, _SLICE)):
            rows = ((key(tally, now), tally.tenant, tally) for tally in part)
            best = heapq.nlargest(limit, [*best, *(row for row in rows if row[0] > 0)])
            await asyncio.sleep(0)
        return [tally.told(now) for _, _, tally in best]

    def busiest(self, limit: int) -> list[tuple[str, float]]:
        """The first by rate, and their rates; from any thread, as metrics are read in one."""
        now = self._clock()
        rows = [(tally.rates(now)[0], name) for name, tally in list(self._tallies.items())]
        return [(name, rate) for rate, name in heapq.nlargest(limit, rows) if rate > 0]

    def sweep(self) -> None:
        """Forget who was idle."""
        self._swept = now = self._clock()
        self._tallies = {name: each for name, each in self._tallies.items() if not each.idle(now)}

    def _new(self, tenant: str, now: float) -> Tally:
        if now - self._swept > IDLE / 2 or (
            len(self._tallies) >= self._most and now - self._swept > _PAUSE
        ):
            self.sweep()
        if len(self._tallies) >= self._most:
            tenant = OTHERS
            if (others := self._tallies.get(tenant)) is not None:
                return others
        tally = self._tallies[tenant] = Tally(tenant, now)
        return tally


def quantile(latency: Iterable[int], part: float) -> float | None:
    """The latency in seconds that `part` (0 to 1) of the messages stay below; None without any.

    It is the upper bound of a bucket; beyond the last it is infinite.
    """
    counts = list(latency)
    wanted = math.ceil(sum(counts) * part)
    if not wanted:
        return None
    seen = 0
    for bound, count in zip((*LATENCIES, math.inf), counts, strict=True):
        seen += count
        if seen >= wanted:
            return bound
    return math.inf


def _slowest(tally: Tally, now: float) -> float:
    tally.turn(now)
    return quantile(tally.latencies(), 0.99) or 0.0


_COLUMNS: dict[TallyColumn, Callable[[Tally, float], float]] = {
    "rate": lambda tally, now: tally.rates(now)[0],
    "limited": lambda tally, now: tally.rates(now)[1],
    "errors": lambda tally, now: tally.rates(now)[2],
    "running": lambda tally, _: tally.running,
    "latency": _slowest,
}
