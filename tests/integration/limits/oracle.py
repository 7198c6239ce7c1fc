"""An exact log of who was admitted when, and what a bucket that leaks would have said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tenantry_workers.router.limits import Decision, Meter
from tenantry_workers.router.limits.shared import SharedLimiter


@dataclass
class Log:
    """Messages of one tenant in the order in which they were decided."""

    meter: Meter
    told: list[tuple[float, Decision]] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)
    """When each of `told` was sent."""
    sent: int = 0
    delay: float = 0.0
    """Longest that a message was parked, seconds."""

    @property
    def admitted(self) -> int:
        return sum(decision.allowed for _, decision in self.told)

    def send(self, limiter: SharedLimiter, tenant: str = "acme") -> None:
        """One message; its decision is logged when it is there."""
        begin = time.monotonic()
        self.sent += 1

        def note(decision: Decision) -> None:
            now = time.monotonic()
            self.delay = max(self.delay, now - begin)
            self.told.append((now, decision))
            self.begun.append(begin)

        decision = limiter.take(tenant, (self.meter,), begin)
        if decision is None:
            limiter.park(tenant, (self.meter,), note)
        else:
            note(decision)

    async def complete(self) -> None:
        """Wait for what is parked."""
        async with asyncio.timeout(20):
            while len(self.told) < self.sent:
                await asyncio.sleep(0.005)

    def over(self) -> float:
        """How many messages were admitted over the limit at worst."""
        held, at, over = 0.0, 0.0, 0.0
        for now, decision in self.told:
            held, at = max(0.0, held - (now - at) * self.meter.rate), now
            held += decision.allowed
            over = max(over, held - self.meter.burst)
        return over

    def wrong(self, routers: int) -> int:
        """How many were refused although the limit had room by more than the bound.

        What was decided at the same time has no order: an admitted message counts from when it was
        sent, a refused one from when it was told.
        """
        events = sorted(
            (began if decision.allowed else now, decision.allowed)
            for began, (now, decision) in zip(self.begun, self.told, strict=True)
        )
        held, at, wrong = 0.0, 0.0, 0
        for now, allowed in events:
            held, at = max(0.0, held - (now - at) * self.meter.rate), now
            held += allowed
            wrong += not allowed and held + 1 + self.bound(routers) <= self.meter.burst
        return wrong

    def bound(self, routers: int) -> float:
        """What decision 17 states, and what leaks while an answer is on its way."""
        credit = max(1, int(self.meter.burst * 0.003))
        return routers * credit + self.meter.rate * self.delay + 0.01


async def play(
    log: Log, limiters: Sequence[SharedLimiter], trace: Iterable[tuple[float, int]]
) -> None:
    """Send messages at their times (seconds from now), each through the router it names."""
    begin = time.monotonic()
    for due, who in trace:
        while (wait := begin + due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        log.send(limiters[who % len(limiters)])
        await asyncio.sleep(0)
    await log.complete()
