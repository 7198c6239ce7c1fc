"""How many messages a tenant may send: the generic cell rate algorithm (ITU-T I.371).

One number a tenant: the theoretical arrival time of its next message. Replicas each keep their
own here; a limiter that they share has the same interface.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from tenantry.messages import Plan


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
    """GCRA in this process alone."""

    def __init__(self) -> None:
        self._arrivals: dict[str, float] = {}

    def take(self, tenant: str, plan: Plan, now: float) -> Grant:
        """Allow up to `plan.burst` at once and `plan.rate` per second in the long run."""
        interval = 1.0 / plan.rate
        window = interval * plan.burst
        arrival = max(self._arrivals.get(tenant, 0.0), now)
        ahead = arrival - now
        # The billionth absorbs what floating point loses over a burst of additions.
        if ahead + interval > window + 1e-9:
            return Grant(False, 0, ahead + interval - window)
        self._arrivals[tenant] = arrival + interval
        return Grant(True, math.floor((window - ahead - interval) / interval + 1e-6), 0.0)

    def forget_idle(self, now: float) -> None:
        """Drop tenants whose budget is full again: they need no number."""
        self._arrivals = {name: at for name, at in self._arrivals.items() if at > now}

    def __len__(self) -> int:
        return len(self._arrivals)
