"""Messages of the edge that wait for a limiter's word, and those of their tenant behind them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from tenantry import tasks
from tenantry.bus import Message
from tenantry_workers.router.admission import Limited
from tenantry_workers.router.limits import Decision, Limiter

log = structlog.get_logger("tenantry.router")

Finish = Callable[[Message, Limited], Awaitable[None]]


class Parking:
    """Keeps each tenant's order; one task finishes what may go on."""

    def __init__(self, limiter: Limiter, finish: Finish) -> None:
        self._limiter = limiter
        self._finish = finish
        self._ready: deque[tuple[Message, Limited]] = deque()
        self._more = asyncio.Event()
        self._behind: dict[str, int] = {}
        """How many messages of a tenant are parked, or ready and not finished."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._task = asyncio.create_task(self._work())

    def holds(self, message: Message, limited: Limited) -> bool:
        """Whether the message has to wait: then it is taken over."""
        if limited.refusal is not None:
            return False
        if limited.decision is not None and limited.tenant not in self._behind:
            return False
        self._behind[limited.tenant] = self._behind.get(limited.tenant, 0) + 1
        self._empty.clear()

        def resume(decision: Decision) -> None:
            self._ready.append((message, limited._replace(decision=decision)))
            self._more.set()

        if limited.decision is None:
            self._limiter.park(limited.tenant, limited.meters, resume)
        else:
            resume(limited.decision)
        return True

    async def _work(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._ready:
                message, limited = self._ready.popleft()
                try:
                    await self._finish(message, limited)
                except Exception:  # as for a subscription's callback: it must not end the others
                    log.exception("callback failed", subject=message.subject)
                self._behind[limited.tenant] -= 1
                if not self._behind[limited.tenant]:
                    del self._behind[limited.tenant]
            if not self._behind:
                self._empty.set()

    async def drain(self) -> None:
        """Return when nothing waits any more."""
        await self._empty.wait()

    async def stop(self) -> None:
        """End its task."""
        await tasks.end(self._task)
