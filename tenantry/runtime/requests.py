"""Requests: each runs in its own task, and is answered whatever happens."""

from __future__ import annotations

import asyncio
import time

import structlog

from tenantry import subjects
from tenantry.bus import Bus, Message
from tenantry.context.turn import free
from tenantry.errors import DeadlineExceeded, Rejection, TooLarge, Unavailable
from tenantry.messages import Cursor
from tenantry.rows import Rows
from tenantry.runtime.runner import Runner
from tenantry.runtime.tallies import Tally
from tenantry.service.handler import Handler
from tenantry.wire import headers, problem, trace

_BACKLOG = 16
"""Requests that may wait, for each one that may run."""

_REASONS = {"is busy": "overload", "is stopping": "stopping"}

log = structlog.get_logger("tenantry.dispatch")


class Requests:
    """The requests to one service in one instance."""

    def __init__(self, bus: Bus, runner: Runner, cursors: Rows[Cursor]) -> None:
        self._bus = bus
        self._runner = runner
        self._service = runner.service
        self._cursors = cursors
        self._slots = asyncio.Semaphore(self._service.concurrency)
        self._limit = self._service.concurrency * (1 + _BACKLOG)
        self._running: set[asyncio.Task[None]] = set()

    async def accept(self, handler: Handler, message: Message) -> None:
        """Take one request; it runs in its own task, and so in its own context."""
        if len(self._running) >= self._limit:
            await self._turn_away(handler, message, "is busy")
            return
        task = asyncio.create_task(self._finish(handler, message))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _finish(self, handler: Handler, message: Message) -> None:
        tally = self._runner.stats.began(message.subject.split(".", 2)[1])
        try:
            await self._answer(handler, message, tally)
        except asyncio.CancelledError:
            await self._turn_away(handler, message, "is stopping")
            raise
        finally:
            self._runner.stats.left(tally)

    async def _turn_away(self, handler: Handler, message: Message, why: str) -> None:
        self._runner.stats.refused[_REASONS[why]] += 1
        rejection = Unavailable(f"{self._service.name} {why}", retry_after=1.0)
        parent = trace.extract(message.headers)
        await self._reject(handler, message, rejection, (parent or trace.new()).trace_id)

    async def _answer(self, handler: Handler, message: Message, tally: Tally) -> None:
        came = time.perf_counter_ns()
        async with self._slots:
            began = time.perf_counter_ns()
            if (queued := self._runner.stats.queued) is not None:
                queued((began - came) / 1e9)
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
                    rejection = self._runner.outward(handler, failure, span.trace.trace_id)
                    error = rejection.code
                    span.failed(error)
                    await self._reject(handler, message, rejection, span.trace.trace_id)
                else:
                    error = await self._reply(handler, message, body, span.trace.trace_id)
            self._runner.stats.ended(handler.name, tally, time.perf_counter_ns() - began, error)

    async def _request(self, handler: Handler, message: Message, hop: trace.Trace) -> bytes:
        now = time.time()
        incoming = message.headers or {}
        deadline = _deadline(incoming, now, handler.timeout)
        if deadline <= now:
            raise DeadlineExceeded("the deadline was over before the service could begin")
        context = None
        if not self._service.platform:
            tenant = message.subject.split(".", 2)[1]
            context = self._runner.context(
                subjects.Address(tenant, handler.service, handler.action),
                incoming,
                hop,
                now,
                turn=free(self._cursors.of(tenant).generation),
                message_id=incoming.get(headers.MSG_ID) or f"request:{hop.span_id}",
                deadline=deadline,
            )
        body = handler.decode(message.data)
        return await self._runner.run(handler, context, body, deadline - now, hop.trace_id)

    async def _reply(self, handler: Handler, message: Message, body: bytes, trace_id: str) -> str:
        """Send the answer; returns the code of the error that was sent in its place, if any."""
        try:
            await self._bus.answer(message, body, headers=_standing(message.headers))
        except TooLarge as large:
            failed = self._runner.failed(handler, trace_id, large)
            await self._reject(handler, message, failed, trace_id)
            return failed.code
        return ""

    async def _reject(
        self, handler: Handler, message: Message, rejection: Rejection, trace_id: str
    ) -> None:
        try:
            fields, body = problem.dump(rejection, trace_id)
        except Exception as error:  # noqa: BLE001  (a member that JSON can't carry)
            fields, body = problem.dump(self._runner.failed(handler, trace_id, error), trace_id)
        await self._bus.answer(message, body, headers=fields)

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


def _standing(incoming: dict[str, str] | None) -> dict[str, str] | None:
    """What the router has said of the tenant's quota, for the asker."""
    if not incoming or headers.RATE not in incoming:
        return None
    return {name: incoming.get(name, "") for name in (headers.RATE_POLICY, headers.RATE)}


def _deadline(incoming: dict[str, str], now: float, limit: float) -> float:
    """When to stop: the asker's deadline, at most `limit` seconds from now."""
    try:
        asked = int(incoming.get(headers.DEADLINE, "")) / 1000
    except ValueError:
        asked = now + limit
    return min(asked, now + limit)
