"""Requests: each runs in its own task, and is answered whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import time
from collections.abc import Coroutine
from typing import Any

import structlog

from tenantry import clock, subjects
from tenantry.bus import Bus, Message
from tenantry.context.context import Context
from tenantry.context.fence import free
from tenantry.context.token import SKEW
from tenantry.errors import (
    DeadlineExceeded,
    HandlerFailed,
    Rejection,
    TooLarge,
    Unavailable,
    UnknownKey,
)
from tenantry.fairness.breaker import Verdict
from tenantry.fairness.ticket import Ticket
from tenantry.messages import Cursor
from tenantry.rows import Rows
from tenantry.runtime.mesh import InnerTimeout
from tenantry.runtime.runner import Runner
from tenantry.runtime.slots import Slots
from tenantry.runtime.tallies import Tally
from tenantry.service.handler import Handler
from tenantry.wire import headers, problem, trace

_FAILURES = frozenset({HandlerFailed.code, DeadlineExceeded.code})

log = structlog.get_logger("tenantry.dispatch")


class _TooLate(DeadlineExceeded):
    """The handler was not called."""


class Endpoint:
    """A handler of requests, with what the span of each of them says."""

    __slots__ = ("attributes", "handler", "span")

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.span = f"process {handler.name}"
        self.attributes = {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.template": f"request.*.{handler.name}",
        }


class Request:
    """One request, until it is answered."""

    __slots__ = ("_requests", "endpoint", "message", "tenant", "until")

    def __init__(self, requests: Requests, endpoint: Endpoint, message: Message) -> None:
        self._requests = requests
        self.endpoint = endpoint
        self.message = message
        self.tenant = message.subject.split(".", 2)[1]
        self.until = _until(message.headers or {}, time.time())
        """When its asker stops waiting, by this machine's clock; infinite where it does not say."""

    def left(self) -> float:
        """Seconds until its asker stops waiting."""
        return self.until - time.time()

    def start(self, ticket: Ticket) -> None:
        """It has a slot: it runs in its own task, and so in its own context."""
        self._requests.run(self, ticket)

    def refuse(self, ticket: Ticket, why: Rejection) -> None:
        """It has waited in vain."""
        self._requests.refuse(self, ticket, why)


class Requests:
    """The requests to one service in one instance."""

    def __init__(self, bus: Bus, runner: Runner, slots: Slots, cursors: Rows[Cursor]) -> None:
        self._bus = bus
        self._runner = runner
        self._service = runner.service
        self._cursors = cursors
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._running: dict[Request, asyncio.Task[None]] = {}
        self._waiting: dict[Ticket, None] = {}
        self._calm = asyncio.Event()
        """Set where a task may have been the last one while this instance stops."""
        self._nobody = contextvars.copy_context()
        """What begins in another request's place must not begin in its context."""

    def accept(self, endpoint: Endpoint, message: Message) -> None:
        """Take one request; it runs when it is its tenant's turn."""
        request = Request(self, endpoint, message)
        ticket = self._ticket(request)
        self._waiting[ticket] = None  # until it has a slot, which it may get while it enters
        try:
            if not self._slots.enter(ticket):
                return
        except Rejection as rejection:
            running = self._turn_away(request, rejection)
        else:
            running = self._finish(request, ticket)
        del self._waiting[ticket]
        self._begin(request, running)

    def _ticket(self, request: Request) -> Ticket:
        """What it may ask for: a weight counts only once the context is verified."""
        tenant, name = request.tenant, request.endpoint.handler.name
        if not self._service.platform:
            claims = self._runner.claims(tenant, request.message.headers or {}, clock.now())
            if claims is not None:
                share = self._slots.share(claims.concurrency)
                return Ticket(tenant, name, request, weight=claims.weight, concurrency=share)
        return Ticket("", name, request)

    def run(self, request: Request, ticket: Ticket) -> None:
        """Run one that has its slot."""
        self._waiting.pop(ticket, None)
        self._begin(request, self._finish(request, ticket))

    def refuse(self, request: Request, ticket: Ticket, why: Rejection) -> None:
        """Answer one that gets no slot."""
        self._waiting.pop(ticket, None)
        self._begin(request, self._turn_away(request, why))

    def _begin(self, request: Request, work: Coroutine[Any, Any, None]) -> None:
        self._running[request] = self._loop.create_task(work, context=self._nobody.copy())
        self._bus.begun()

    def _ended(self, request: Request) -> None:
        self._running.pop(request, None)
        if not self._running:
            self._calm.set()

    async def _finish(self, request: Request, ticket: Ticket) -> None:
        verdict, stats = Verdict.NEITHER, self._runner.stats
        tally = stats.began(request.tenant)
        try:
            verdict = await self._answer(request, tally)
        except asyncio.CancelledError:
            await self._reject(request, self._stopping())
            raise
        finally:
            stats.left(tally)
            self._slots.leave(ticket, verdict)
            self._ended(request)

    def _stopping(self) -> Rejection:
        return Unavailable(f"{self._service.name} is stopping", retry_after=1.0)

    async def _turn_away(self, request: Request, rejection: Rejection) -> None:
        try:
            await self._reject(request, rejection)
        finally:
            self._ended(request)

    async def _answer(self, request: Request, tally: Tally) -> Verdict:
        began, endpoint, handler = (
            time.perf_counter_ns(),
            request.endpoint,
            request.endpoint.handler,
        )
        error, verdict = "", Verdict.WORKED
        parent = trace.extract(request.message.headers)
        with trace.span(endpoint.span, trace.KIND_SERVER, parent, endpoint.attributes) as span:
            hop = span.trace
            if not self._service.platform:
                trace.about({trace.TENANT: request.tenant})
            try:
                try:
                    context, body, budget = self._prepare(request, hop)
                except UnknownKey:
                    if not await self._runner.caught_up():
                        raise
                    context, body, budget = self._prepare(request, hop)
                answer = await self._runner.run(handler, context, body, budget, hop.trace_id)
            except Exception as failure:  # noqa: BLE001  (an asker always gets an answer)
                rejection = self._runner.outward(handler, failure, hop.trace_id)
                error = rejection.code
                failed = error in _FAILURES and not isinstance(failure, _TooLate | InnerTimeout)
                verdict = Verdict.FAILED if failed else Verdict.NEITHER
                span.failed(error)
                await self._reject(request, rejection, hop.trace_id)
            else:
                error = await self._reply(request, answer, hop.trace_id)
                verdict = Verdict.FAILED if error else verdict
        self._runner.stats.ended(handler.name, tally, time.perf_counter_ns() - began, error)
        return verdict

    def _prepare(self, request: Request, hop: trace.Trace) -> tuple[Context | None, Any, float]:
        """The context, the body and how many seconds there are; raises what is wrong with it."""
        now, handler, message = time.time(), request.endpoint.handler, request.message
        incoming = message.headers or {}
        deadline = min(request.until, now + handler.timeout)
        if deadline <= now:
            raise _TooLate("the deadline was over before the service could begin")
        context = None
        if not self._service.platform:
            context = self._runner.context(
                subjects.Address(request.tenant, handler.service, handler.action),
                incoming,
                hop,
                clock.now(),
                fence=free(self._cursors.of(request.tenant).generation),
                message_id=incoming.get(headers.MSG_ID) or f"request:{hop.span_id}",
                deadline=deadline,
            )
        return context, handler.decode(message.data), deadline - now

    async def _reply(self, request: Request, body: bytes, trace_id: str) -> str:
        """Send the answer; returns the code of the error that was sent in its place, if any."""
        message = request.message
        fields = _standing(message.headers)
        try:
            if not self._bus.answer_now(message, body, headers=fields):
                await self._bus.answer(message, body, headers=fields)
        except TooLarge as large:
            failed = self._runner.failed(request.endpoint.handler, trace_id, large)
            await self._reject(request, failed, trace_id)
            return failed.code
        return ""

    async def _reject(self, request: Request, rejection: Rejection, trace_id: str = "") -> None:
        message = request.message
        if not trace_id:
            trace_id = (trace.extract(message.headers) or trace.new()).trace_id
        try:
            fields, body = problem.dump(rejection, trace_id, room=self._bus.max_body)
        except Exception as error:  # noqa: BLE001  (a member that JSON can't carry)
            failed = self._runner.failed(request.endpoint.handler, trace_id, error)
            fields, body = problem.dump(failed, trace_id)
        await self._bus.answer(message, body, headers=fields)

    async def drain(self, deadline: float) -> None:
        """Wait for the requests that are here, until `deadline` (loop time), then cut them off."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._running or self._waiting:
                    self._calm.clear()
                    await self._calm.wait()
        left, cut = list(self._waiting), list(self._running.values())
        self._slots.refuse_all(left, self._stopping)
        for task in cut:
            task.cancel()
        if cut or left:
            count = len(cut) + len(left)
            log.warning("cut off by shutdown", service=self._service.name, requests=count)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=1.0)


def _standing(incoming: dict[str, str] | None) -> dict[str, str] | None:
    """What the router has said of the tenant's quota, for the asker."""
    if not incoming or headers.RATE not in incoming:
        return None
    return {name: incoming.get(name, "") for name in (headers.RATE_POLICY, headers.RATE)}


def _until(incoming: dict[str, str], came: float) -> float:
    """When the asker of a request that came at `came` stops waiting, by this machine's clock.

    How long it waits counts from when the message came. Its deadline is by another machine's clock:
    it counts where that is all that is told, or where it is past by more than clocks are apart.
    """
    try:
        deadline = int(incoming.get(headers.DEADLINE, "")) / 1000
    except (ValueError, OverflowError):
        deadline = math.inf
    try:
        seconds = float(incoming.get(headers.TIMEOUT, ""))
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        return deadline
    return min(came + seconds, deadline + SKEW)
