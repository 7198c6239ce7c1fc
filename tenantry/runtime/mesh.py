"""What a context reaches through the worker it runs in: other services, and its own state."""

from __future__ import annotations

import time

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.context.context import Context
from tenantry.context.staged import StagedState
from tenantry.context.state import State
from tenantry.errors import DeadlineExceeded, from_inside
from tenantry.messages import Kind
from tenantry.runtime.audit import Audit
from tenantry.runtime.declared import Outgoing
from tenantry.runtime.outbox import Renewer
from tenantry.runtime.values import Values
from tenantry.subjects import Address
from tenantry.wire import headers, problem, trace

_DEFAULT_TIMEOUT = 10.0

_MARGIN = 0.01
"""An action that is asked has to answer so much before the asker's own deadline, seconds: then it
is known which one was late."""


class InnerTimeout(DeadlineExceeded):
    """An action that a handler has asked did not answer in time; `message` names it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.inside = True


class WorkerMesh:
    """Implements :class:`tenantry.context.context.Mesh` on a bus."""

    def __init__(self, bus: Bus, renewer: Renewer, audit: Audit) -> None:
        self.outgoing: Outgoing | None = None
        """Knows what may be sent and asked for; without it, every name is taken."""
        self._audit = audit
        self._bus = bus
        self._renewer = renewer
        self.values = Values(bus)
        """The service's state: what handlers read and what the runtime commits."""

    def check(self, name: str, kind: Kind) -> None:
        """Raise DeclarationError unless `<service>.<action>` is declared as `kind`."""
        if self.outgoing is not None:
            self.outgoing.check(name, kind)

    def state(self, context: Context) -> State:
        """The state of the context's service for its tenant."""
        kind = StagedState if context.fence.is_staged else State
        bucket = self.values.bucket
        tenant, service = context.tenant, context.service
        return kind(self._bus, tenant, service, context.fence, context.check, bucket)

    def crossed(self, context: Context, other: Context) -> None:
        """A handler of the tenant `other` has used what it kept of another tenant's message."""
        self._audit.refused(
            "crossed_context",
            tenant=other.tenant,
            victim=context.tenant,
            subject=f"{other.service}.{other.action}",
            why="a context of another tenant's message was used after its end",
        )

    async def request(
        self, context: Context, to: Address, body: bytes, timeout: float | None
    ) -> bytes:
        """Ask another service, within what is left of the message's own deadline."""
        budget = _DEFAULT_TIMEOUT if timeout is None else timeout
        if not isinstance(budget, int | float):
            raise TypeError(f"timeout= takes seconds, not a {type(budget).__name__}")
        if context.remaining is not None:
            budget = min(budget, context.remaining - _MARGIN)
        if budget <= 0:
            raise InnerTimeout(f"no time is left to ask {to.name}")
        with trace.span(
            f"send {to.name}",
            trace.KIND_CLIENT,
            context.trace,
            {
                "messaging.operation.name": "request",
                "messaging.operation.type": "send",
                trace.DESTINATION: f"request.*.{to.name}",
                trace.TENANT: context.tenant,
                trace.PLAN: context.plan,
                trace.PRINCIPAL: context.principal,
            },
        ) as span:
            fields = {
                headers.CONTEXT: await self._renewer.token(context),
                headers.DEADLINE: str(int((time.time() + budget) * 1000)),
                headers.TIMEOUT: f"{budget:.3f}",
                headers.HOPS: str(headers.hops(context.headers) + 1),
            }
            span.trace.inject(fields)
            try:
                with from_inside():  # what NATS says; what the other service says is its own affair
                    answer = await self._bus.call(
                        subjects.request(to), body, headers=fields, timeout=budget
                    )
            except DeadlineExceeded:
                span.failed(DeadlineExceeded.code)
                raise InnerTimeout(f"{to.name} did not answer within {budget:.3g} s") from None
            if rejection := problem.load(answer.headers, answer.data):
                span.failed(rejection.code)
                raise rejection
            return answer.data
