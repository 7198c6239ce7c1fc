"""One message through its handler: verify, decode, run, publish what it left, answer.

The order is the contract (docs/decisions/0003-the-order-of-a-message.md): the context is verified
before the body is looked at; what a handler emits is in the journal before the message is
acknowledged or answered; an error says its code outside and its reason only in the log.
"""

from __future__ import annotations

import asyncio
import functools
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any, Protocol

import structlog

from tenantry import subjects
from tenantry.bus import Bus, Message
from tenantry.bus.jetstream import Delivery
from tenantry.context.context import Context, Mesh, current
from tenantry.context.platform import PlatformContext
from tenantry.context.token import Claims, KeyRing
from tenantry.context.turn import Turn, free
from tenantry.errors import (
    BadContext,
    DeadlineExceeded,
    HandlerFailed,
    RateLimited,
    Rejection,
    Superseded,
    TooLarge,
    Unavailable,
    UnknownKey,
)
from tenantry.messages import Cursor
from tenantry.rows import Rows
from tenantry.runtime.outbox import Outbox
from tenantry.runtime.stats import Stats
from tenantry.service.handler import Handler
from tenantry.service.service import Service
from tenantry.wire import codec, headers, problem, trace

_BACKLOG = 16
"""Requests that may wait, for each one that may run."""

_RESET = 300.0
"""Longest that a reset hook may take, seconds."""

_KEY_TRIES = 6
"""A key can be younger here than at the signer; after about six seconds it does not exist."""

log = structlog.get_logger("tenantry.dispatch")


class Permanent(Exception):
    """A stored message that no retry can help; `rejection` says why."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection


class Incoming(Protocol):
    """A message as a lane delivers it, or as it is read from the journal."""

    @property
    def subject(self) -> str:
        """`journal.<partition>.<tenant>.<service>.<action>`."""
        ...

    @property
    def headers(self) -> dict[str, str] | None:
        """Its headers."""
        ...

    @property
    def data(self) -> bytes:
        """Its body."""
        ...


class Dispatcher:
    """Runs the handlers of one service in one instance."""

    def __init__(
        self,
        bus: Bus,
        service: Service,
        ring: KeyRing,
        mesh: Mesh,
        outbox: Outbox,
        cursors: Rows[Cursor],
    ) -> None:
        self.stats = Stats()
        self.resources: Any = None
        self._bus = bus
        self._service = service
        self._ring = ring
        self._mesh = mesh
        self._outbox = outbox
        self._cursors = cursors
        self._slots = asyncio.Semaphore(service.concurrency)
        self._limit = service.concurrency * (1 + _BACKLOG)
        self._running: set[asyncio.Task[None]] = set()

    # --- requests ------------------------------------------------------------------------------

    async def accept(self, handler: Handler, message: Message) -> None:
        """Take one request; it runs in its own task, and so in its own context."""
        if len(self._running) >= self._limit:
            await self._turn_away(handler, message, "is busy")
            return
        task = asyncio.create_task(self._finish(handler, message))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _finish(self, handler: Handler, message: Message) -> None:
        try:
            await self._answer(handler, message)
        except asyncio.CancelledError:
            await self._turn_away(handler, message, "is stopping")
            raise

    async def _turn_away(self, handler: Handler, message: Message, why: str) -> None:
        rejection = Unavailable(f"{self._service.name} {why}", retry_after=1.0)
        parent = trace.extract(message.headers)
        await self._reject(handler, message, rejection, (parent or trace.new()).trace_id)

    async def _answer(self, handler: Handler, message: Message) -> None:
        async with self._slots:
            began = time.perf_counter_ns()
            error = ""
            with trace.span(
                f"process {handler.name}",
                trace.KIND_SERVER,
                trace.extract(message.headers),
                {
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.destination.template": f"request.*.{handler.name}",
                },
            ) as span:
                try:
                    body = await self._request(handler, message, span.trace)
                except Exception as failure:  # noqa: BLE001  (an asker always gets an answer)
                    rejection = self._outward(handler, failure, span.trace.trace_id)
                    error = rejection.code
                    span.failed(error)
                    await self._reject(handler, message, rejection, span.trace.trace_id)
                else:
                    error = await self._reply(handler, message, body, span.trace.trace_id)
            self.stats.of(handler.name).done(time.perf_counter_ns() - began, error)

    async def _request(self, handler: Handler, message: Message, hop: trace.Trace) -> bytes:
        now = time.time()
        incoming = message.headers or {}
        deadline = _deadline(incoming, now, handler.timeout)
        if deadline <= now:
            raise DeadlineExceeded("the deadline was over before the service could begin")
        context = None
        if not self._service.platform:
            tenant = message.subject.split(".", 2)[1]
            context = self._context(
                subjects.Address(tenant, handler.service, handler.action),
                incoming,
                hop,
                now,
                turn=free(self._cursors.of(tenant).generation),
                message_id=incoming.get(headers.MSG_ID) or f"request:{hop.span_id}",
                deadline=deadline,
            )
        body = handler.decode(message.data)
        return await self._run(handler, context, body, deadline - now, hop.trace_id)

    async def _reply(self, handler: Handler, message: Message, body: bytes, trace_id: str) -> str:
        """Send the answer; returns the code of the error that was sent in its place, if any."""
        try:
            await self._bus.answer(message, body)
        except TooLarge as large:
            failed = self._failed(handler, trace_id, large)
            await self._reject(handler, message, failed, trace_id)
            return failed.code
        return ""

    async def _reject(
        self, handler: Handler, message: Message, rejection: Rejection, trace_id: str
    ) -> None:
        try:
            fields, body = problem.dump(rejection, trace_id)
        except Exception as error:  # noqa: BLE001  (a member that JSON can't carry)
            fields, body = problem.dump(self._failed(handler, trace_id, error), trace_id)
        await self._bus.answer(message, body, headers=fields)

    # --- stored messages -----------------------------------------------------------------------

    async def stored(
        self, handler: Handler, message: Incoming, delivery: Delivery, turn: Turn
    ) -> None:
        """Handle one message of the journal in its turn.

        Raises :class:`Permanent` for what can never succeed, :class:`Superseded` for what must not
        count any more, another :class:`Rejection` for what may succeed at another try.
        """
        began = time.perf_counter_ns()
        error = ""
        address = subjects.parse_stored(message.subject)
        incoming = message.headers or {}
        with trace.span(
            f"process {handler.name}",
            trace.KIND_CONSUMER,
            trace.extract(incoming),
            {
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.template": f"tenant.*.{handler.name}",
                "tenant.id": address.tenant,
            },
        ) as span:
            try:
                context = self._context(
                    # A follower acts as its own service, whoever emitted the event.
                    subjects.Address(address.tenant, self._service.name, address.action),
                    incoming,
                    span.trace,
                    delivery.stored,
                    message_id=message_id(incoming, delivery.seq),
                    attempt=delivery.attempt,
                    seq=delivery.seq,
                    turn=turn,
                )
                body = handler.decode(message.data)
                if not turn.replaying:
                    # Before it runs, so that a deleted tenant's backlog stops here.
                    await self._outbox.refresh(context)
                await self._run(handler, context, body, handler.timeout, span.trace.trace_id)
            except Superseded as late:
                error = late.code
                raise
            except Exception as failure:  # noqa: BLE001  (whatever it is, the message is settled)
                rejection = self._outward(handler, failure, span.trace.trace_id)
                error = rejection.code
                late_key = isinstance(rejection, UnknownKey) and delivery.attempt < _KEY_TRIES
                if not handler.retry.may_help(rejection) and not late_key:
                    raise Permanent(rejection) from None
                raise rejection from None
            finally:
                if error:
                    span.failed(error)
                self.stats.of(handler.name).done(time.perf_counter_ns() - began, error)

    async def reset(
        self, tenant: str, hook: Callable[[Context], Awaitable[None]], turn: Turn
    ) -> None:
        """Run the hook that clears a tenant's state; raises :class:`HandlerFailed`."""
        hop = trace.new()
        context = Context(
            self._mesh,
            Claims(tenant=tenant, plan="", principal="replay", issued=0.0, expires=0.0),
            "",
            subjects.Address(tenant, self._service.name, "reset"),
            hop,
            message_id=f"reset:{hop.trace_id}",
            resources=self.resources,
            turn=turn,
        )
        context.enter()
        try:
            async with asyncio.timeout(_RESET):
                await hook(context)
        except Exception as error:
            log.exception("reset failed", tenant=tenant, service=self._service.name)
            failed = HandlerFailed(f"the reset hook of {self._service.name} failed: {error}")
            failed.retry = False
            raise failed from None
        finally:
            context.close()

    # --- both ----------------------------------------------------------------------------------

    def _context(
        self,
        address: subjects.Address,
        incoming: dict[str, str],
        hop: trace.Trace,
        at: float,
        **more: Any,
    ) -> Context:
        """Verify who the message belongs to; raises :class:`BadContext`."""
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
            raise
        context = Context(
            self._mesh,
            claims,
            token,
            address,
            hop,
            headers=incoming,
            resources=self.resources,
            **more,
        )
        context.enter()
        return context

    async def _run(
        self, handler: Handler, context: Context | None, body: Any, budget: float, trace_id: str
    ) -> bytes:
        """Run the handler within `budget` seconds, publish what it left, return its answer.

        The answer is encoded before anything is published: one that can't be is a failure too.
        Raises only a :class:`Rejection`, or CancelledError when this task is cancelled.
        """
        arguments = [context if context is not None else PlatformContext(trace_id, self.resources)]
        if handler.takes_body:
            arguments.append(body)
        limit = asyncio.Timeout(None)
        try:
            result = await _within(limit, budget, handler.function(*arguments))
            handler.check_output(result)
            answer = codec.encode(result)
        except Rejection:
            raise
        except TimeoutError as error:
            if limit.expired():
                log.warning(
                    "cut off",
                    action=handler.name,
                    tenant=_tenant(),
                    trace_id=trace_id,
                    after=budget,
                )
                raise DeadlineExceeded(f"{handler.name} did not finish in time") from None
            raise self._failed(handler, trace_id, error) from None
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._failed(handler, trace_id, error) from None
        except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever it raises ends here)
            raise self._failed(handler, trace_id, error) from None
        finally:
            staged = context.close() if context is not None else ()
        if context is not None and staged:
            context.turn.check()
            await self._outbox.publish(context, staged)
        return answer

    def _outward(self, handler: Handler, failure: Exception, trace_id: str) -> Rejection:
        """What may be said outside: never a rejection that something inside has given us."""
        if not isinstance(failure, Rejection):
            return self._failed(handler, trace_id, failure)
        if not failure.inside:
            return failure
        failed = self._failed(handler, trace_id, failure)
        failed.retry = True  # what the mesh could not do for the handler, it may do later
        if isinstance(failure, Unavailable | DeadlineExceeded | RateLimited):
            return Unavailable(
                f"{handler.name} can't be served now", retry_after=failure.retry_after or 1.0
            )
        return failed

    def _failed(self, handler: Handler, trace_id: str, error: BaseException) -> HandlerFailed:
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

    async def drain(self, deadline: float) -> None:
        """Wait for the requests that run, until `deadline` (loop time), then cut them off."""
        loop = asyncio.get_running_loop()
        if self._running:
            await asyncio.wait(self._running, timeout=max(0.0, deadline - loop.time()))
        cut = list(self._running)
        for task in cut:
            task.cancel()
        if cut:
            log.warning("cut off by shutdown", service=self._service.name, requests=len(cut))
            await asyncio.wait(cut, timeout=1.0)


async def _within(limit: asyncio.Timeout, budget: float, running: Coroutine[Any, Any, Any]) -> Any:
    """Await a coroutine within `budget` seconds: one that never pauses needs no timer (10 µs)."""
    try:
        waits_for = running.send(None)
    except StopIteration as end:
        return end.value
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


def message_id(incoming: Mapping[str, str], seq: int) -> str:
    """The id that all deliveries of a stored message share, a redriven one too."""
    return incoming.get(headers.MESSAGE_ID) or incoming.get(headers.MSG_ID) or f"journal:{seq}"


def _tenant() -> str | None:
    """Whose message this task handles, once its context is verified."""
    try:
        return current().tenant
    except LookupError:
        return None


def _deadline(incoming: dict[str, str], now: float, limit: float) -> float:
    """When to stop: the asker's deadline, at most `limit` seconds from now."""
    try:
        asked = int(incoming.get(headers.DEADLINE, "")) / 1000
    except ValueError:
        asked = now + limit
    return min(asked, now + limit)
