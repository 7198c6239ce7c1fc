"""One try of one stored message: a slot, the handler, and how it ended."""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import structlog

from tenantry.bus.jetstream import Delivery
from tenantry.context.context import Context
from tenantry.context.fence import Fence, fence_of
from tenantry.delivery.dead_letters import Incoming
from tenantry.delivery.settlement import Outcome, Result
from tenantry.errors import HandlerFailed, LaneLost, Rejection, Superseded
from tenantry.fairness.ticket import Ticket
from tenantry.messages import Cursor
from tenantry.runtime.commit import Commit
from tenantry.runtime.progress import settled_up_to
from tenantry.runtime.slots import NOBODY, Slots
from tenantry.runtime.stored import NotBegun, Permanent, StoredMessages
from tenantry.service.handler import Handler

log = structlog.get_logger("tenantry.dispatch")

_DONE, _LOST = Result(Outcome.DONE), Result(Outcome.LOST)


class StoredAttempts:
    """Runs the stored messages of one service in one replica, as there are slots for them."""

    def __init__(self, stored: StoredMessages, slots: Slots, commit: Commit) -> None:
        self._stored = stored
        self._slots = slots
        self._commit = commit
        self._tickets: dict[Fence, Ticket] = {}
        """Of what runs."""
        self._nobody = contextvars.copy_context()
        """The clean context of which each handler gets a copy."""

    async def run(
        self, handler: Handler, message: Incoming, delivery: Delivery, fence: Fence
    ) -> Result:
        """Try once, in a context of its own. Raises only CancelledError."""
        tenant = message.subject.split(".", 3)[2]
        claims = self._stored.claims(tenant, message, delivery)
        if claims is not None:
            share = self._slots.share(claims.concurrency) if claims.concurrency else 0
            ticket = Ticket(
                tenant, handler.name, NOBODY, weight=claims.weight, concurrency=share, stored=True
            )
        else:  # it will be refused: at nobody's cost
            ticket = Ticket("", handler.name, NOBODY, stored=True)
        if not self._slots.enter(ticket):
            await self._slots.wait(ticket)
        self._tickets[fence] = ticket
        try:
            handling = self._stored.handle(handler, message, delivery, fence)
            await _in_context(self._nobody.copy(), handling)
        except Superseded as late:
            if isinstance(late, LaneLost) or fence.lost:
                return _LOST
            log.info("settled before", tenant=tenant, action=handler.name, seq=delivery.seq)
            return Result(Outcome.LATE, late)
        except NotBegun as waits:
            return Result(Outcome.NOT_BEGUN, waits.rejection)
        except Permanent as permanent:
            return Result(Outcome.HOPELESS, permanent.rejection)
        except Rejection as rejection:
            return _LOST if fence.lost else Result(Outcome.FAILED, rejection)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as odd:  # noqa: BLE001  (it would end whoever serves its tenant)
            why = HandlerFailed(f"{handler.name} failed")
            why.cause = f"{type(odd).__name__}: {odd}".removesuffix(": ")
            about = {"tenant": tenant, "action": handler.name, "seq": delivery.seq}
            log.error("handler failed", **about, why=why.cause)
            return Result(Outcome.FAILED, why)
        finally:
            self._leave(fence)
        return _DONE

    def abandon(self, fence: Fence) -> None:
        """Leave a handler to itself that ignores its end: nothing that it does counts any more."""
        fence.end()
        self._leave(fence)

    def _leave(self, fence: Fence) -> None:
        if (ticket := self._tickets.pop(fence, None)) is not None:
            self._slots.leave(ticket)

    async def reset(
        self, tenant: str, hook: Callable[[Context], Awaitable[None]], fence: Fence
    ) -> None:
        """Run a service's reset hook; raises :class:`Rejection` where it fails."""
        ticket = await self._slots.hold(tenant, "reset")
        try:
            await _ends(asyncio.create_task(self._stored.reset(tenant, hook, fence)))
        finally:
            self._slots.leave(ticket)

    async def finish(self, tenant: str, cursor: Cursor, *, first: int) -> None:
        """Finish what a former owner has committed of a tenant's messages from `first` on."""
        await self._commit.finish(tenant, cursor.generation, fence_of(cursor.epoch, first))

    async def settled_up_to(self, tenant: str, cursor: Cursor, *, first: int, since: float) -> int:
        """Finish what a former owner has committed, and say how far the tenant has come."""
        await self.finish(tenant, cursor, first=first)
        return await settled_up_to(
            self._commit.values.bucket,
            tenant,
            self._commit.service,
            cursor.generation,
            cursor.epoch,
            since,
        )


@types.coroutine
def _in_context(
    context: contextvars.Context, running: Coroutine[Any, Any, None]
) -> Generator[Any, Any, None]:
    """Await a coroutine that has a context of its own, in the task of now: no task is made."""
    step: Callable[[Any], Any] = running.send
    sent: Any = None
    while True:
        try:
            waits_for = context.run(step, sent)
        except StopIteration:
            return
        try:
            sent = yield waits_for
            step = running.send
        except BaseException as error:  # noqa: BLE001  (its own to handle, a cancellation too)
            sent, step = error, running.throw


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
