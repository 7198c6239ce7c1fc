"""One try of one stored message, and what becomes of it."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import structlog

from tenantry.bus.jetstream import Delivery
from tenantry.context.context import Context
from tenantry.context.turn import Turn
from tenantry.errors import DeadlineExceeded, HandlerFailed, LaneLost, Rejection, Superseded
from tenantry.runtime.slots import Slots
from tenantry.runtime.stored import Incoming, Permanent, StoredMessages
from tenantry.service.handler import Handler
from tenantry.wire import trace

GRACE = 15.0
"""What a run may take beyond its handler's timeout: for what it publishes, and its clean-up."""

_CUT = 1.0

log = structlog.get_logger("tenantry.lane")


class Outcome(enum.Enum):
    """What became of a try."""

    DONE = "done"
    FAILED = "failed"
    HOPELESS = "hopeless"
    LATE = "late"
    """A later message of the tenant has been handled already."""
    LOST = "lost"
    """It is not for this replica any more to say what becomes of the message."""


class Result(NamedTuple):
    """The outcome, and why where it is a failure."""

    outcome: Outcome
    why: Rejection | None = None


class Attempts:
    """Runs the stored messages of one service in one replica, as there are slots for them."""

    def __init__(self, stored: StoredMessages, slots: Slots) -> None:
        self._stored = stored
        self._slots = slots
        self._hung: set[asyncio.Task[None]] = set()

    async def run(
        self, handler: Handler, message: Incoming, delivery: Delivery, turn: Turn
    ) -> Result:
        """Try once. The handler runs in a task of its own, so nothing stays for the next."""
        claims = self._stored.claims(message, delivery)
        ticket = await self._slots.hold(
            claims.tenant if claims is not None else "",
            handler.name,
            weight=claims.weight if claims is not None else 1,
            concurrency=claims.concurrency if claims is not None else 0,
        )
        try:
            return await self._try(handler, message, delivery, turn)
        finally:
            self._slots.leave(ticket)

    async def _try(
        self, handler: Handler, message: Incoming, delivery: Delivery, turn: Turn
    ) -> Result:
        task = asyncio.create_task(self._stored.handle(handler, message, delivery, turn))
        try:
            await asyncio.sleep(0)
            if not task.done():  # most have ended by now; to wait with a timer costs 10 µs
                await asyncio.wait({task}, timeout=handler.timeout + GRACE)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task}, timeout=_CUT)
            self._abandon(task, turn)
            raise
        if not task.done():
            self._abandon(task, turn)
            log.error("handler hangs and was left", action=handler.name, seq=delivery.seq)
            return Result(
                Outcome.FAILED, DeadlineExceeded(f"{handler.name} hangs and ignores its end")
            )
        return _result(task, turn, handler, delivery)

    async def reset(
        self, tenant: str, hook: Callable[[Context], Awaitable[None]], turn: Turn
    ) -> None:
        """Run a service's reset hook; raises :class:`Rejection` where it fails."""
        ticket = await self._slots.hold(tenant, "reset")
        try:
            await _ends(asyncio.create_task(self._stored.reset(tenant, hook, turn)))
        finally:
            self._slots.leave(ticket)

    def _abandon(self, task: asyncio.Task[None], turn: Turn) -> None:
        """Let a task that ignores its cancellation go on, but let nothing that it does count."""
        turn.end()
        self._hung.add(task)
        task.add_done_callback(self._buried)

    def _buried(self, task: asyncio.Task[None]) -> None:
        self._hung.discard(task)
        if not task.cancelled():
            task.exception()  # seen


async def _ends(task: asyncio.Task[None]) -> None:
    """Wait for a task; one that has cancelled itself has failed."""
    try:
        await task
    except asyncio.CancelledError:
        own = asyncio.current_task()
        if own is not None and own.cancelling():
            raise
        failed = HandlerFailed("the reset hook has cancelled itself")
        failed.retry = False
        raise failed from None


def _result(task: asyncio.Task[None], turn: Turn, handler: Handler, delivery: Delivery) -> Result:
    try:
        task.result()
    except LaneLost:
        return Result(Outcome.LOST)
    except Superseded as late:
        if not turn.valid:
            return Result(Outcome.LOST)
        log.warning("comes late", action=handler.name, seq=delivery.seq)
        return Result(Outcome.LATE, late)
    except Permanent as permanent:
        return Result(Outcome.HOPELESS, permanent.rejection)
    except Rejection as rejection:
        return Result(Outcome.FAILED, rejection)
    except BaseException as odd:  # noqa: BLE001
        # It has cancelled its own task, or raised what is no Exception: a failure like others. Past
        # here it would end the task that serves its tenant, and the message would keep its place.
        why = HandlerFailed(f"{handler.name} failed")
        why.cause = f"{type(odd).__name__}: {odd}".removesuffix(": ")
        log.error("handler failed", action=handler.name, seq=delivery.seq, why=why.cause)
        return Result(Outcome.FAILED, why)
    return Result(Outcome.DONE)


def about(message: Incoming, seq: int) -> dict[str, Any]:
    """What a log line says of a stored message."""
    _, _, tenant, action = message.subject.split(".", 3)
    hop = trace.extract(message.headers)
    found = {"action": action, "tenant": tenant, "seq": seq}
    return found if hop is None else {**found, "trace_id": hop.trace_id}
