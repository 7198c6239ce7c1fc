"""Runs one message: verify its context, call the handler, commit what it left.

The order is the contract (docs/decisions/0003-the-order-of-a-message.md): the context is verified
before the body is looked at; what a handler leaves is stored before the message is settled or
answered; an error says its code outside and its reason only in the log.
"""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import structlog

from tenantry import subjects
from tenantry.context.claims import Claims
from tenantry.context.context import Context, current
from tenantry.context.platform import PlatformContext
from tenantry.context.token import KeyRing
from tenantry.errors import (
    BadContext,
    DeadlineExceeded,
    HandlerFailed,
    RateLimited,
    Rejection,
    TooDeep,
    TooLarge,
    Unavailable,
)
from tenantry.runtime.audit import Audit, Details
from tenantry.runtime.commit import Commit
from tenantry.runtime.mesh import InnerTimeout, WorkerMesh
from tenantry.runtime.outbox import Outbox
from tenantry.runtime.stats import Stats
from tenantry.service.handler import Handler
from tenantry.service.service import Service
from tenantry.wire import codec, headers, trace

log = structlog.get_logger("tenantry.dispatch")


async def _at_once() -> bool:
    return False


class Runner:
    """Runs the handlers of one service in one instance."""

    def __init__(
        self,
        service: Service,
        ring: KeyRing,
        mesh: WorkerMesh,
        outbox: Outbox,
        audit: Audit,
        *,
        caught_up: Callable[[], Awaitable[bool]] = _at_once,
    ) -> None:
        self.service = service
        self._audit = audit
        self.caught_up = caught_up
        """Waits where keys may have been missed; False where none can have been."""
        self.mesh = mesh
        self.outbox = outbox
        self.commit = Commit(outbox, service.name, mesh.values)
        self.stats = Stats()
        self.resources: Any = None
        self._ring = ring

    def claims(self, tenant: str, incoming: dict[str, str], at: float) -> Claims | None:
        """Whose a message is, verified; None where it will be refused when it runs."""
        try:
            return self._ring.verify(incoming.get(headers.CONTEXT), tenant, at)
        except BadContext:
            return None

    def context(
        self,
        address: subjects.Address,
        incoming: dict[str, str],
        hop: trace.Trace,
        at: float,
        **more: Any,
    ) -> Context:
        """Verify who the message belongs to; raises :class:`BadContext`, :class:`TooDeep`."""
        token = incoming.get(headers.CONTEXT, "")
        try:
            claims = self._ring.verify(token, address.tenant, at)
        except BadContext as rejection:
            log.warning(
                "context refused",
                tenant=address.tenant,
                action=address.name,
                trace_id=hop.trace_id,
                why=rejection.message,
            )
            self._suspect(address, token, at, rejection, stored="seq" in more)
            raise
        if headers.HOPS in incoming and headers.hops(incoming) > self.service.max_hops:
            raise TooDeep(
                f"{headers.hops(incoming)} messages led to this {address.name}, each the cause of "
                f"the next; {self.service.name} takes {self.service.max_hops}",
                hint="look for services whose messages cause each other, or raise max_hops",
            )
        context = Context(
            self.mesh,
            claims,
            token,
            address,
            hop,
            headers=incoming,
            resources=self.resources,
            **more,
        )
        context.enter()
        if trace.enabled():
            trace.about({trace.PLAN: claims.plan, trace.PRINCIPAL: claims.principal})
        return context

    def _suspect(
        self, address: subjects.Address, token: str, at: float, why: BadContext, *, stored: bool
    ) -> None:
        """Inside the mesh every message has a good context: one that has not was made by hand."""
        owner = self._ring.owner(token)
        subject = subjects.journal(address) if stored else subjects.request(address)
        details: Details = {"victim": address.tenant, "subject": subject, "why": why.message}
        if owner and owner != address.tenant:
            self._audit.refused("foreign_context", **details | {"tenant": owner})
            return
        fields = {headers.CONTEXT: token}
        # A key may be younger here than at the signer.
        self._audit.refused(
            "bad_context",
            holds=lambda: self.claims(address.tenant, fields, at) is None,
            **details,
        )

    async def run(
        self, handler: Handler, context: Context | None, body: Any, budget: float, trace_id: str
    ) -> bytes:
        """Run the handler within `budget` seconds, commit what it left, return its answer.

        The answer is encoded before anything is committed: one that can't be is a failure too.
        Raises only a :class:`Rejection`, :class:`Rerun` for a stored message whose handler has to
        run again on fresh state, or CancelledError when this task is cancelled.
        """
        first = context if context is not None else PlatformContext(trace_id, self.resources)
        function, limit = handler.function, None
        running = function(first, body) if handler.takes_body else function(first)
        try:
            try:
                waits_for = running.send(None)
            except StopIteration as end:
                result = end.value  # one that never pauses needs no timer (10 µs)
            else:
                limit = asyncio.Timeout(None)
                result = await _within(limit, budget, running, waits_for)
            handler.check_output(result)
            answer = codec.encode(result) if handler.kind == "request" else b""
        except (Rejection, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if limit is not None and limit.expired():
                raise self._late(handler, budget, trace_id) from None
            task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
            if task is not None and task.cancelling():
                raise
            raise self.failed(handler, trace_id, error) from None
        finally:
            staged = context.close() if context is not None else ()
        if context is not None and (staged or context.uses_state):
            try:
                await self.commit.run(context, staged)
            except TooLarge as large:  # the handler's doing: its asker has sent nothing too large
                raise self.failed(handler, trace_id, large) from None
            if staged:
                self.stats.tenants.sent(context.tenant, len(staged))
        return answer

    def _late(self, handler: Handler, budget: float, trace_id: str) -> DeadlineExceeded:
        about = {"action": handler.name, "tenant": _tenant(), "trace_id": trace_id}
        log.warning("cut off", **about, after=budget)
        return DeadlineExceeded(f"{handler.name} did not finish in time")

    def outward(self, handler: Handler, failure: Exception, trace_id: str) -> Rejection:
        """What may be said outside: never a rejection that something inside has given us."""
        if not isinstance(failure, Rejection):
            return self.failed(handler, trace_id, failure)
        if not failure.inside:
            return failure
        failed = self.failed(handler, trace_id, failure)
        failed.retry = True  # what the mesh could not do for the handler, it may do later
        if isinstance(failure, InnerTimeout):
            late = DeadlineExceeded(f"{handler.name} did not finish in time")
            late.cause = failure.message
            return late
        if isinstance(failure, Unavailable | DeadlineExceeded | RateLimited):
            return Unavailable(
                f"{handler.name} can't be served now", retry_after=failure.retry_after or 1.0
            )
        return failed

    def failed(self, handler: Handler, trace_id: str, error: BaseException) -> HandlerFailed:
        """Log why a handler failed; what is returned tells nothing of it."""
        log.error(
            "handler failed",
            action=handler.name,
            tenant=_tenant(),
            trace_id=trace_id,
            exc_info=error,
        )
        failed = HandlerFailed(
            f"{handler.name} failed", hint="the service's log has the reason under the trace id"
        )
        failed.retry = handler.retry.may_help(error)
        failed.cause = f"{type(error).__name__}: {error}"
        return failed


async def _within(
    limit: asyncio.Timeout, budget: float, running: Coroutine[Any, Any, Any], waits_for: Any
) -> Any:
    """Await within `budget` seconds the rest of a coroutine that waits for something."""
    async with limit:
        limit.reschedule(asyncio.get_running_loop().time() + budget)
        return await _go_on(running, waits_for)


@types.coroutine
def _go_on(running: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """Await the rest of a coroutine that has been run up to its first pause."""
    while True:
        try:
            sent = yield waits_for
        except BaseException as error:  # noqa: BLE001  (its own to handle, a cancellation too)
            step = functools.partial(running.throw, error)
        else:
            step = functools.partial(running.send, sent)
        try:
            waits_for = step()
        except StopIteration as end:
            return end.value


def _tenant() -> str | None:
    """Whose message this task handles, once its context is verified."""
    try:
        return current().tenant
    except LookupError:
        return None
