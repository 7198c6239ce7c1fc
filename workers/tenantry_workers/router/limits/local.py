"""Limits of this process alone: its share of what the tenant may send."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from tenantry_workers.router.limits.bucket import ROUNDING, Bucket
from tenantry_workers.router.limits.meter import Decision, Level, Meter, Resume


def take_share(
    buckets: Sequence[Bucket], meters: Sequence[Meter], now: float, routers: int
) -> Decision:
    """Count one message against a router's own part of each meter."""
    refused: Meter | None = None
    wait, left, tightest = 0.0, math.inf, meters[0]
    fits: list[Bucket] = []
    shadowed: tuple[str, ...] = ()
    for meter, bucket in zip(meters, buckets, strict=True):
        rate = meter.rate / routers
        over = bucket.over(now, rate, max(1.0, meter.burst / routers))
        if over <= ROUNDING:
            fits.append(bucket)
            if -over < left and not meter.shadow:
                left, tightest = -over, meter
        elif meter.shadow:
            shadowed += (meter.name,)
        else:
            refused, wait = meter, max(wait, over / rate)
    if refused is not None:
        return Decision(False, refused, 0, wait, shadowed=shadowed)
    for bucket in fits:
        bucket.held += 1.0
    remaining = math.floor(left + ROUNDING) if left < math.inf else 0
    return Decision(True, tightest, remaining, shadowed=shadowed)


class LocalLimiter:
    """The buckets of this process; limits are divided by `routers`, at least 1."""

    def __init__(self, routers: Callable[[], int] = lambda: 1) -> None:
        self._routers = routers
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def take(self, tenant: str, meters: Sequence[Meter], now: float) -> Decision:
        """Allow up to the burst at once and the rate per second in the long run."""
        routers = self._routers()
        if len(meters) == 1 and not meters[0].shadow:
            return self._take_one(tenant, meters[0], now, routers)
        buckets = []
        for meter in meters:
            key = (tenant, meter.name)
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = Bucket(0.0, now, meter.rate)
            buckets.append(bucket)
        return take_share(buckets, meters, now, routers)

    def _take_one(self, tenant: str, meter: Meter, now: float, routers: int) -> Decision:
        """What most messages are subject to, without the loops."""
        key, rate = (tenant, meter.name), meter.rate / routers
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(0.0, now, rate)
        over = bucket.over(now, rate, max(1.0, meter.burst / routers))
        if over > ROUNDING:
            return Decision(False, meter, 0, over / rate)
        bucket.held += 1.0
        return Decision(True, meter, math.floor(ROUNDING - over))

    def park(self, tenant: str, meters: Sequence[Meter], resume: Resume) -> None:
        """Decide at once: nothing is ever left open here."""
        resume(self.take(tenant, meters, time.monotonic()))

    def level(self, tenant: str, meter: Meter, now: float) -> Level:
        """What is left of this router's part."""
        part = max(1.0, meter.burst / self._routers())
        bucket = self._buckets.get((tenant, meter.name))
        return Level(part if bucket is None else max(0.0, part - bucket.level(now)), shared=False)

    def forget_idle(self, now: float) -> None:
        """Drop the buckets that are empty: they need none."""
        self._buckets = {key: b for key, b in self._buckets.items() if b.level(now) > 0.0}

    def __len__(self) -> int:
        return len(self._buckets)
