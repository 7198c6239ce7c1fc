"""One tenant read apart from its lane: straight from the journal, from its cursor on.

So a message that fails is tried again without anybody else waiting for it, and a replay brings a
tenant back while its live messages wait. The cursor is in KV: whoever reads the lane next goes on
from there. It catches up with the lane in the end, and lets the tenant go with it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import structlog

from tenantry import streams, subjects
from tenantry.bus import Message
from tenantry.bus.jetstream import Delivery, StoredMessage
from tenantry.bus.scan import scan
from tenantry.errors import JetStreamError, LaneLost, Rejection, UnknownAction
from tenantry.messages import Cursor
from tenantry.runtime.attempts import Outcome, about
from tenantry.runtime.replaying import Replaying, is_due
from tenantry.service.handler import Handler
from tenantry.wire import headers

if TYPE_CHECKING:
    from tenantry.runtime.lane import Lane

_SAVE_AFTER = 0.5
_AGAIN = 0.5
_BLOCKED = 5.0
_LAG = 0.05
_PATIENCE = 5.0
_UNKNOWN = 30.0
_UNKNOWN_TRIES = 20

log = structlog.get_logger("tenantry.lane")


@dataclass(slots=True, kw_only=True)
class Apart:
    """What a lane and the reader of a tenant apart tell each other about it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a message of the lane is seen to, and while the reader changes the order."""
    held: dict[int, Message] = field(default_factory=dict)
    """What the lane has and has not begun, by sequence; of a repeat the later delivery."""
    passed: int = 0
    """Highest sequence that the lane has passed over."""


class Behind:
    """Reads one tenant until it has caught up; calls `done` when it ends."""

    def __init__(self, lane: Lane, tenant: str, apart: Apart, done: Callable[[], None]) -> None:
        self._lane = lane
        self._tenant = tenant
        self._apart = apart
        self._next = 0
        self._saved = 0.0
        self._looked_for = (0, 0.0)
        """What the lane has passed over and is not found, and since when."""
        self._wake = asyncio.Event()
        self._leaving = False
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: done())

    def wake(self) -> None:
        """Something may be to do."""
        self._wake.set()

    def leave(self) -> asyncio.Task[None]:
        """Begin nothing new; the task ends when what runs has ended."""
        self._leaving = True
        self._wake.set()
        return self._task

    # --- inside --------------------------------------------------------------------------------

    async def _run(self) -> None:
        found = self._lane.cursors.of(self._tenant)
        while not self._leaving and self._lane.ready():
            try:
                if self._replay_is_due():
                    await Replaying(self._lane, self._tenant, self._apart, self._stopped).run()
                    continue
                row = self._lane.cursors.of(self._tenant)
                if not row.behind:
                    return
                row = _anew(row) if row is found else row
                if await self._pause(row.retry_at - time.time()):
                    continue
                if await self._read(row):
                    return
                if self._apart.passed >= self._next:
                    await self._pause(_LAG)
            except LaneLost as lost:
                log.info("tenant left", tenant=self._tenant, why=lost.message)
                await self._pause(_AGAIN)
            except (Rejection, JetStreamError, TimeoutError) as error:
                log.warning("tenant waits", tenant=self._tenant, why=str(error))
                await self._pause(_AGAIN)
            except Exception:
                log.exception("tenant waits", tenant=self._tenant)
                await self._pause(_BLOCKED)

    def _replay_is_due(self) -> bool:
        return is_due(self._lane.replays.of(self._tenant))

    def _stopped(self) -> bool:
        return self._leaving or not self._lane.ready()

    async def _pause(self, seconds: float) -> bool:
        """Wait; True where something woke us before."""
        self._wake.clear()
        if seconds <= 0:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
                return True
        return False

    async def _read(self, row: Cursor) -> bool:
        """Handle what the journal has from the cursor on; True when the tenant has caught up."""
        self._next, self._saved = row.next, time.monotonic()
        read = scan(
            self._lane.bus, streams.JOURNAL, subjects.stored_of(self._tenant), first=row.next
        )
        async with aclosing(read) as messages:
            async for message in messages:
                if self._stopped() or self._replay_is_due():
                    break
                if not await self._handle(message, row):
                    return False
                row = self._lane.cursors.of(self._tenant)
                self._next = message.seq + 1
                handled = message.subject.split(".", 3)[3] in self._lane.handlers
                if handled or time.monotonic() - self._saved > _SAVE_AFTER:
                    await self._save()
            else:
                return await self._catch_up()
        await self._save()
        return False

    async def _catch_up(self) -> bool:
        """Let the tenant go with its lane again, unless the lane has passed over more meanwhile."""
        async with self._apart.lock:
            if self._apart.passed >= self._next and not self._is_erased():
                await self._save()
                return False
            self._next = max(self._next, self._apart.passed + 1)
            await self._change(
                lambda row: Cursor(
                    next=self._next,
                    since=row.since,
                    epoch=row.epoch,
                    generation=row.generation,
                    former=row.former,
                )
            )
        log.info("caught up", tenant=self._tenant, service=self._lane.service.name, at=self._next)
        return True

    def _is_erased(self) -> bool:
        """Whether what the lane has passed over is gone from the journal, not just late.

        A replica of the stream may lag behind the one that delivers to the lane.
        """
        now = time.monotonic()
        if self._looked_for[0] != self._apart.passed:
            self._looked_for = (self._apart.passed, now)
        if now - self._looked_for[1] < _PATIENCE:
            return False
        log.warning("erased before it was handled", tenant=self._tenant, seq=self._apart.passed)
        return True

    async def _save(self) -> None:
        self._saved = time.monotonic()
        await self._change(
            lambda row: (
                msgspec.structs.replace(
                    row, next=self._next, failed=0, first_failed=0.0, retry_at=0.0, code=""
                )
                if row.next != self._next
                else row
            )
        )

    async def _change(self, change: Callable[[Cursor], Cursor]) -> None:
        """Write the cursor, if it is still where we believe it to be."""
        known = self._lane.cursors.of(self._tenant)

        def ours(row: Cursor) -> Cursor:
            if (row.next, row.behind) != (known.next, known.behind) or not self._lane.holds():
                raise LaneLost(f"the cursor of {self._tenant} was moved by another")
            return change(row)

        await self._lane.cursors.change(self._tenant, ours)

    async def _handle(self, message: StoredMessage, row: Cursor) -> bool:
        """Handle one message; False where it has to be tried again later."""
        name = message.subject.split(".", 3)[3]
        handler = self._lane.handlers.get(name)
        only = message.headers.get(headers.ONLY)
        if only not in (None, self._lane.service.name):
            return True
        if handler is None:
            return await self._unknown(message, name)
        if self._lane.is_free(handler, message.seq):
            return True  # the lane itself delivers those
        failed = row.failed if row.next == message.seq else 0
        delivery = Delivery(failed + 1, message.seq, message.time, 0)
        turn = self._lane.turn(message.seq, row=row)
        outcome, why = await self._lane.attempts.run(handler, message, delivery, turn)
        if outcome is Outcome.LOST:
            raise LaneLost("the lane was lost")
        if why is None:
            return True
        # Late: each one that was handled is noted before the next begins, so it was overtaken.
        if outcome in (Outcome.HOPELESS, Outcome.LATE) or delivery.attempt >= handler.retry.tries:
            first = row.first_failed if failed else 0.0
            return await self._lay_down(message, delivery, why, first)
        await self._failed(message, handler, delivery, why)
        return False

    async def _unknown(self, message: StoredMessage, name: str) -> bool:
        """A message of ours without a handler: for a newer version, or of an older one."""
        if name not in self._lane.names:
            return True
        why = self._lane.unknown(name)
        row = self._lane.cursors.of(self._tenant)
        failed = row.failed if row.next == message.seq else 0
        if self._lane.outdated and failed < _UNKNOWN_TRIES:  # a newer version may come back
            retry_at = time.time() + _UNKNOWN
            await self._change(
                lambda row: msgspec.structs.replace(
                    row, next=message.seq, failed=failed + 1, retry_at=retry_at, code=why.code
                )
            )
            return False
        return await self._lay_down(message, Delivery(1, message.seq, message.time, 0), why, 0.0)

    async def _lay_down(
        self, message: StoredMessage, delivery: Delivery, why: Rejection, first_failed: float
    ) -> bool:
        try:
            await self._lane.letters.lay(message, delivery, why, first_failed)
        except (Rejection, JetStreamError) as error:
            log.error("dead letter not written", seq=message.seq, why=str(error))
            await self._change(
                lambda row: msgspec.structs.replace(
                    row, next=message.seq, retry_at=time.time() + _BLOCKED, code=why.code
                )
            )
            return False
        return True

    async def _failed(
        self, message: StoredMessage, handler: Handler, delivery: Delivery, why: Rejection
    ) -> None:
        pause, now = handler.retry.pause(delivery.attempt), time.time()
        log.warning(
            "will retry",
            **about(message, message.seq),
            attempt=delivery.attempt,
            after=round(pause, 2),
            code=why.code,
        )
        await self._change(
            lambda row: msgspec.structs.replace(
                row,
                next=message.seq,
                failed=delivery.attempt,
                first_failed=row.first_failed if delivery.attempt > 1 else now,
                retry_at=now + pause,
                code=why.code,
            )
        )


def _anew(row: Cursor) -> Cursor:
    """A row as we found it: what an older version did not know need not wait for us."""
    if row.code != UnknownAction.code:
        return row
    return msgspec.structs.replace(row, failed=0, retry_at=0.0)
