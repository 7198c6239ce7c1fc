"""Handles messages of the journal: what is raised says what becomes of a message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager

import structlog

from tenantry import subjects
from tenantry.bus.jetstream import Delivery
from tenantry.context.claims import Claims
from tenantry.context.context import Context
from tenantry.context.fence import Fence
from tenantry.context.state import conflict
from tenantry.delivery.dead_letters import Incoming
from tenantry.errors import (
    DeadlineExceeded,
    HandlerFailed,
    Rejection,
    Repeated,
    Superseded,
    Unavailable,
    UnknownKey,
)
from tenantry.runtime.commit import Rerun
from tenantry.runtime.runner import Runner
from tenantry.service.handler import Handler
from tenantry.wire import headers, trace

_RESET = 300.0
"""Longest that a reset hook may take, seconds."""

_KEY_TRIES = 6
"""A key can be younger here than at the signer; after about six seconds it does not exist."""

_RERUNS = 10
"""How often a handler runs again at once since a request has changed what it had read."""

log = structlog.get_logger("tenantry.dispatch")


class Permanent(Exception):
    """A stored message that no retry can help; `rejection` says why."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection


class NotBegun(Exception):
    """The mesh can't do now what comes before the handler; `rejection` says why."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection


class StoredMessages:
    """The stored messages for one service in one instance."""

    def __init__(self, runner: Runner) -> None:
        self.stats = runner.stats
        self._runner = runner
        self._service = runner.service

    def claims(self, tenant: str, message: Incoming, delivery: Delivery) -> Claims | None:
        """Whose a message is, verified; None where `handle` will refuse it."""
        return self._runner.claims(tenant, message.headers or {}, delivery.stored)

    async def handle(
        self, handler: Handler, message: Incoming, delivery: Delivery, fence: Fence
    ) -> None:
        """Handle one message of the journal under its fence.

        Raises :class:`Permanent` for what can never succeed, :class:`Superseded` for what must not
        count any more (:class:`Repeated` where it has counted before), and another
        :class:`Rejection` for what may succeed at another try.
        """
        began = time.perf_counter_ns()
        error, stats = "", self._runner.stats
        tenant = message.subject.split(".", 3)[2]
        tally = stats.began(tenant)
        with self._span(handler, tenant, message.headers) as span:
            try:
                commit = self._runner.commit
                if commit.cut_off and await commit.resume(tenant, fence):
                    return
                await self._run(handler, message, delivery, fence, span.trace)
            except Superseded as late:
                error = late.code
                raise
            except NotBegun as waits:
                error = waits.rejection.code
                raise
            except Exception as failure:  # noqa: BLE001  (whatever it is, the message is settled)
                rejection = self._runner.outward(handler, failure, span.trace.trace_id)
                error = rejection.code
                late_key = isinstance(rejection, UnknownKey) and delivery.attempt < _KEY_TRIES
                if not handler.retry.may_help(rejection) and not late_key:
                    raise Permanent(rejection) from None
                raise rejection from None
            finally:
                if error:
                    span.failed(error)
                stats.ended(handler.name, tally, time.perf_counter_ns() - began, error)
                stats.left(tally)

    @staticmethod
    def _span(
        handler: Handler, tenant: str, incoming: Mapping[str, str] | None
    ) -> AbstractContextManager[trace.Span]:
        parent = trace.extract(incoming)
        if not trace.enabled():
            return trace.Span(parent.child() if parent else trace.new())
        attributes = {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.template": f"tenant.*.{handler.name}",
            trace.TENANT: tenant,
        }
        return trace.span(f"process {handler.name}", trace.KIND_CONSUMER, parent, attributes)

    async def _run(
        self,
        handler: Handler,
        message: Incoming,
        delivery: Delivery,
        fence: Fence,
        hop: trace.Trace,
    ) -> None:
        """Run the handler until what it has read is still so when it commits."""
        budget, end = handler.timeout, 0.0
        for _ in range(1 + _RERUNS):
            context = self._context(message, delivery, fence, hop)
            body = handler.decode(message.data)
            outbox = self._runner.outbox
            if not fence.replaying and outbox.is_stale(context.claims.expires):
                # Before it runs, so that a deleted tenant's backlog stops here.
                await self._refresh(context)
            end = end or time.monotonic() + budget
            try:
                await self._runner.run(handler, context, body, budget, hop.trace_id)
            except Rerun:
                budget = end - time.monotonic()
                continue
            except Repeated:
                finish = self._runner.commit.finish
                await finish(context.tenant, fence.generation, at_least=fence.value or 0)
                raise
            return
        raise conflict(f"requests change the state that {handler.name} reads all the time")

    async def _refresh(self, context: Context) -> None:
        """Renew a stale context; raises :class:`NotBegun` while no router answers."""
        try:
            await self._runner.outbox.refresh(context)
        except (Unavailable, DeadlineExceeded) as away:
            raise NotBegun(away) from None

    def _context(
        self, message: Incoming, delivery: Delivery, fence: Fence, hop: trace.Trace
    ) -> Context:
        """The context of one run; raises :class:`BadContext`."""
        _, _, tenant, _, action = message.subject.split(".")
        incoming = message.headers or {}
        return self._runner.context(
            # A follower acts as its own service, whoever emitted the event.
            subjects.Address(tenant, self._service.name, action),
            incoming,
            hop,
            delivery.stored,
            message_id=message_id(incoming, delivery.seq),
            attempt=delivery.attempt,
            seq=delivery.seq,
            fence=fence,
        )

    async def reset(
        self, tenant: str, hook: Callable[[Context], Awaitable[None]], fence: Fence
    ) -> None:
        """Run the hook that clears a tenant's state; raises :class:`HandlerFailed`.

        It may be tried again where NATS was away and the hook has not failed of itself.
        """
        hop = trace.new()
        context = Context(
            self._runner.mesh,
            Claims(tenant=tenant, plan="", principal="replay", issued=0.0, expires=0.0),
            "",
            subjects.Address(tenant, self._service.name, "reset"),
            hop,
            message_id=f"reset:{hop.trace_id}",
            resources=self._runner.resources,
            fence=fence,
        )
        context.enter()
        try:
            async with asyncio.timeout(_RESET):
                await hook(context)
        except Exception as error:
            log.exception("reset failed", tenant=tenant, service=self._service.name)
            failed = HandlerFailed(f"the reset hook of {self._service.name} failed: {error}")
            failed.retry = isinstance(error, Unavailable | DeadlineExceeded) and error.inside
            raise failed from None
        finally:
            context.close()


def message_id(incoming: Mapping[str, str], seq: int) -> str:
    """The id that all deliveries of a stored message share, a redriven one too."""
    return incoming.get(headers.MESSAGE_ID) or incoming.get(headers.MSG_ID) or f"journal:{seq}"
