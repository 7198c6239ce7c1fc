"""How many messages a tenant may send: a leaky bucket as a meter (GCRA, ITU-T I.371).

Two numbers a tenant: how many messages its bucket holds, and when that was. A bucket counted in
messages is exact for any uptime and burst, where one counted in seconds (the theoretical arrival
time) loses precision as the clock grows; and a new plan holds from its first message on. Replicas
each keep their own here; a limiter that they share has the same interface.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from tenantry.messages import Plan

_ROUNDING = 1e-3
"""What the clock and floating point may lose, messages."""


class Grant(NamedTuple):
    """What a limiter says of one message."""

    allowed: bool
    remaining: int
    """Messages that could follow at once."""
    retry_after: float
    """Seconds until one is allowed; 0 where this one is."""


class Limiter(Protocol):
    """Decides in memory; never waits."""

    def take(self, tenant: str, plan: Plan, now: float) -> Grant:
        """Count one message of `tenant` at `now` (monotonic seconds) against its plan."""
        ...


class LocalLimiter:
    """The buckets of this process alone."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def take(self, tenant: str, plan: Plan, now: float) -> Grant:
        """Allow up to `plan.burst` at once and `plan.rate` per second in the long run."""
        bucket = self._buckets.get(tenant)
        if bucket is None:
            bucket = self._buckets[tenant] = _Bucket(0.0, now, plan.rate)
        # Nobody owes more than a full bucket, even where the plan has become smaller.
        level = min(bucket.level(now), plan.burst)
        over = level + 1.0 - plan.burst
        allowed = over <= _ROUNDING
        bucket.held, bucket.at, bucket.rate = level + allowed, now, plan.rate
        if not allowed:
            return Grant(False, 0, over / plan.rate)
        return Grant(True, math.floor(_ROUNDING - over), 0.0)

    def forget_idle(self, now: float) -> None:
        """Drop tenants whose bucket is empty: they need none."""
        self._buckets = {name: b for name, b in self._buckets.items() if b.level(now) > 0.0}

    def __len__(self) -> int:
        return len(self._buckets)


class _Bucket:
    """What a tenant has sent and not leaked yet."""

    __slots__ = ("at", "held", "rate")

    def __init__(self, held: float, at: float, rate: float) -> None:
        self.held = held
        self.at = at
        self.rate = rate

    def level(self, now: float) -> float:
        """How many messages have not leaked out by `now`."""
        return max(self.held - (now - self.at) * self.rate, 0.0)
