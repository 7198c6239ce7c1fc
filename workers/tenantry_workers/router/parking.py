"""Messages of the edge that wait for their limits, and those of their tenant behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from tenantry.bus import Message
from tenantry_workers.router.admission import Limited
from tenantry_workers.router.limits import Decision, Limiter
from tenantry_workers.router.quotas import Quotas, Verdict

Finish = Callable[[Message, Limited], None]

log = structlog.get_logger("tenantry.router")


class Parking:
    """Keeps each tenant's order."""

    def __init__(self, limiter: Limiter, quotas: Quotas, finish: Finish) -> None:
        self._limiter = limiter
        self._quotas = quotas
        self._finish = finish
        self._behind: dict[str, int] = {}
        """How many messages of a tenant are parked."""
        self._due: dict[str, float] = {}
        """When the last message of a tenant goes on that is held up, loop time."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._loop = asyncio.get_running_loop()

    def holds(self, message: Message, limited: Limited) -> bool:
        """Whether the message has to wait: then it is taken over."""
        if limited.refusal is not None:
            return False
        if limited.known and not limited.delay and limited.tenant not in self._behind:
            return False
        self._behind[limited.tenant] = self._behind.get(limited.tenant, 0) + 1
        self._empty.clear()
        if limited.decision is None:
            self._await_rate(message, limited)
        else:
            self._await_quota(message, limited)
        return True

    def _await_rate(self, message: Message, limited: Limited) -> None:
        def resume(decision: Decision) -> None:
            self._await_quota(message, limited._replace(decision=decision))

        self._limiter.park(limited.tenant, limited.limits.meters, resume)

    def _await_quota(self, message: Message, limited: Limited) -> None:
        quotas = limited.limits.quotas
        if not limited.known:
            verdict = self._quotas.take(limited.tenant, quotas)
            limited = limited._replace(verdict=verdict)
        if limited.known:
            self._release(message, limited)
            return

        def resume(verdict: Verdict) -> None:
            self._release(message, limited._replace(verdict=verdict))

        self._quotas.park(limited.tenant, quotas, resume)

    def _release(self, message: Message, limited: Limited) -> None:
        """Let it go on, once it was held up for as long as its quota says."""
        tenant, now = limited.tenant, self._loop.time()
        due = max(now + limited.delay, self._due.get(tenant, 0.0))
        if due <= now:
            self._go_on(message, limited)
        else:
            self._due[tenant] = due
            self._loop.call_at(due, self._go_on, message, limited)

    def _go_on(self, message: Message, limited: Limited) -> None:
        try:
            self._finish(message, limited)
        except Exception:  # as for a subscription's callback: it must not end the others
            log.exception("message not forwarded", tenant=limited.tenant, subject=message.subject)
        self._left(limited.tenant)

    def _left(self, tenant: str) -> None:
        self._behind[tenant] -= 1
        if not self._behind[tenant]:
            del self._behind[tenant]
            self._due.pop(tenant, None)
        if not self._behind:
            self._empty.set()

    async def drain(self) -> None:
        """Return when nothing waits any more."""
        await self._empty.wait()
