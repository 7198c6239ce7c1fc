"""What becomes of each message of the edge: forwarded once, or rejected."""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from tenantry import tasks
from tenantry.bus import Bus, Message
from tenantry.errors import RateLimited, Rejection
from tenantry.runtime.tallies import TallyBook
from tenantry.wire import problem, trace
from tenantry_workers.router.admission import (
    PRINCIPAL,
    Admission,
    Ignored,
    Limited,
    may_answer,
    rate_fields,
)
from tenantry_workers.router.limits import Limiter
from tenantry_workers.router.parking import Parking
from tenantry_workers.router.quotas import Quotas
from tenantry_workers.router.suspicion import Suspicion

_SPAN = {"messaging.operation.name": "admit", "messaging.operation.type": "send"}

_LONGEST_NAME = 200
"""Of an action in a span, characters: a client may name what it likes."""

log = structlog.get_logger("tenantry.router")


class Routing:
    """What happens to each message of the edge, at once and without a task.

    Only what the limiter can't tell at once is put aside, so that it holds up nobody else.
    """

    def __init__(
        self,
        bus: Bus,
        admission: Admission,
        limiter: Limiter,
        quotas: Quotas,
        suspicion: Suspicion,
    ) -> None:
        self.verdicts: Counter[str] = Counter()
        """How many messages met which verdict, since the start."""
        self.tallies = TallyBook()
        self._bus = bus
        self._admission = admission
        self._suspicion = suspicion
        self._reported: Counter[str] = Counter()
        self._parking = Parking(limiter, quotas, self._finish)
        self._late: set[asyncio.Task[None]] = set()

    def route(self, message: Message) -> None:
        """Forward one message once, or reject it; now, or when its limits are known."""
        limited = self._admission.limit(message.subject)
        if not self._parking.holds(message, limited):
            self._finish(message, limited)

    async def drain(self) -> None:
        """Return when all that has come is forwarded or rejected."""
        await self._parking.drain()
        if self._late:
            await asyncio.wait(self._late)

    async def stop(self) -> None:
        """Finish no more."""
        await tasks.end(*self._late)

    def _finish(self, message: Message, limited: Limited) -> None:
        headers = message.headers or {}
        with trace.span(
            "admit",
            trace.KIND_PRODUCER,
            trace.extract(headers),
            _about(message.subject, limited) if trace.enabled() else _SPAN,
        ) as span:
            try:
                admitted = self._admission.admit(
                    message.subject,
                    message.reply,
                    headers,
                    len(message.data),
                    span.trace,
                    limited,
                )
                self._send(admitted.subject, message.data, admitted.headers, message.reply)
            except Ignored:
                self.verdicts["ignored"] += 1
                self._suspicion.stranger(message)
            except Rejection as rejection:
                self._suspicion.refused(message, rejection)
                self.verdicts[rejection.code] += 1
                self.tallies.refused(limited.tenant, rejection.code)
                span.failed(rejection.code)
                self._reject(message, rejection, span.trace.trace_id)
            else:
                if trace.enabled():
                    kind, _, action = admitted.subject.split(".", 2)
                    trace.about({trace.DESTINATION: f"{kind}.*.{action}"})
                if admitted.forged:
                    self._suspicion.forged(message)
                self.verdicts["admitted"] += 1
                self.tallies.admitted(limited.tenant)

    def _reject(self, message: Message, rejection: Rejection, trace_id: str) -> None:
        if not may_answer(message.subject, message.reply):
            return
        fields, body = problem.dump(rejection, trace_id)
        if isinstance(rejection, RateLimited):
            fields |= rate_fields(rejection)
        self._send(message.reply, body, fields, "")

    def _send(self, subject: str, body: bytes, headers: dict[str, str], reply: str) -> None:
        """Publish now, or soon where the connection was lost a moment ago."""
        if self._bus.post(subject, body, headers=headers, reply=reply):
            return
        late = asyncio.create_task(self._send_late(subject, body, headers, reply))
        self._late.add(late)
        late.add_done_callback(self._late.discard)

    async def _send_late(
        self, subject: str, body: bytes, headers: dict[str, str], reply: str
    ) -> None:
        try:
            await self._bus.publish(subject, body, headers=headers, reply=reply)
        except Rejection as rejection:
            log.warning(
                "message lost", tenant=subject.split(".")[1], subject=subject, why=str(rejection)
            )

    def report(self) -> None:
        """Log what has been refused since the last time: counts, so a flood does not flood us."""
        fresh = self.verdicts - self._reported
        self._reported = Counter(self.verdicts)
        admitted = fresh.pop("admitted", 0)
        if fresh:
            log.warning("refused", admitted=admitted, **fresh)


def _about(subject: str, limited: Limited) -> dict[str, str]:
    """Return the attributes of a message's span: whose it is, and where it came in."""
    action = subject.split(".", 2)[-1][:_LONGEST_NAME]
    about = {**_SPAN, trace.TENANT: limited.tenant, trace.DESTINATION: f"edge.*.{action}"}
    if limited.refusal is None:
        about |= {trace.PLAN: limited.plan.name, trace.PRINCIPAL: PRINCIPAL}
    return about
