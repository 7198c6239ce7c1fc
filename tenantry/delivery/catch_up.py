"""Reads a sidelined queue by a reader of its own, until nothing that was passed over is left."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import structlog

from tenantry.bus import Message
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.bus.reader import Reader
from tenantry.bus.scan import find
from tenantry.delivery import filters
from tenantry.delivery.environment import Item
from tenantry.delivery.lane import SIDE_MAX, Queue
from tenantry.delivery.partition import Partition
from tenantry.delivery.settlement import longest_pause
from tenantry.errors import JetStreamError, Rejection, TenantSuspended
from tenantry.messages.checkpoints import Open
from tenantry.streams import JOURNAL

_AGAIN = 0.5
_LOOK = 5.0
"""Between two looks at a queue about which nothing is heard, seconds."""

_LAG = 0.05
"""A replica of the stream may be behind its leader: how long to wait for it, seconds."""

log = structlog.get_logger("tenantry.delivery")


class CatchUp:
    """Reads one sidelined queue; calls `done` when it has ended."""

    def __init__(
        self, partition: Partition, queue: Queue[Item], done: Callable[[Queue[Item]], None]
    ) -> None:
        self._partition = partition
        self._lane = partition.lane
        self._queue = queue
        self._wake = asyncio.Event()
        self._seen = 0
        """The last sequence that was read, or that needs no reading."""
        self._at_end = False
        self._ahead = False
        """True if it has come to where the lane's reader is."""
        self._paused: Open | None = None
        self._due = 0.0
        """When that row is due, by `time.monotonic`."""
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(lambda _: done(queue))

    def wake(self) -> None:
        """Something may be to do."""
        self._wake.set()

    # --- inside --------------------------------------------------------------------------------

    def _stopped(self) -> bool:
        return self._lane.leaving or self._partition.hold.lost() or self._queue.side is None

    async def _run(self) -> None:
        while not self._stopped():
            self._wake.clear()
            try:
                if await self._is_due():
                    if self._queue.single:
                        await self._read_one()
                    else:
                        await self._read()
            except (Rejection, JetStreamError, TimeoutError) as error:
                log.warning("tenant waits", tenant=self._queue.tenant, why=str(error))
                await self._pause(_AGAIN)
            except Exception:
                log.exception("tenant waits", tenant=self._queue.tenant)
                await self._pause(_LOOK)

    async def _is_due(self) -> bool:
        """Tell whether it may be read now; else wait for a while."""
        side = self._queue.side
        if side is None:
            return False
        if self._partition.holds_back(self._queue.tenant):
            await self._pause(_LOOK)
            return False
        left = self._left(side)
        if left > 0 or self._queue.running or self._is_suspended(side):
            await self._pause(left if left > 0 else _LOOK)
            return False
        self._lane.retry(self._queue)
        return True

    def _is_suspended(self, side: Open) -> bool:
        """Tell whether it waits until its tenant is resumed; what was erased is looked for."""
        if side.code != TenantSuspended.code or not side.retry_at:
            return False
        return self._queue.tenant in self._partition.env.suspended.rows

    def _left(self, side: Open) -> float:
        """Seconds until a row is due, at most as long as a pause can be.

        The row was written by a clock that may have been wrong, or set since. A pause that has
        begun is measured by one that nobody sets.
        """
        if side is not self._paused:
            handlers = self._partition.env.service.durable.values()
            pause = min(side.retry_at - time.time(), longest_pause(handlers, side.code))
            self._paused, self._due = side, time.monotonic() + pause
        return self._due - time.monotonic()

    async def _pause(self, seconds: float) -> None:
        """Wait until something has happened since `_wake` was cleared."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _read_one(self) -> None:
        """Bring the one message of an unordered queue."""
        queue, lane = self._queue, self._lane
        if queue.waiting:
            await self._pause(_LOOK)
            return
        message = await find(self._partition.env.bus, JOURNAL, queue.single)
        if message is not None:
            delivery = Delivery(1, message.seq, message.time, 0)
            lane.caught(queue, message.seq, Item(message, delivery))
            self._partition.pump()
            await self._pause(_LOOK)
        elif await self._next(queue.single) != queue.single:
            lane.caught_up(queue, lane.position)  # since it was erased
        else:
            await asyncio.sleep(_LAG)

    async def _read(self) -> None:
        """Read from where the queue stands, until it is back in the lane or has to pause."""
        side = self._queue.side
        assert side is not None  # noqa: S101  (`_is_due`)
        self._seen, self._at_end, self._ahead = side.next - 1, False, False
        reader = Reader(
            self._partition.env.bus,
            JOURNAL,
            self._subject(),
            side.next,
            receive=self._receive,
            room=lambda: SIDE_MAX - len(self._queue.waiting),
            batch=SIDE_MAX,
            empty=self._empty,
        )
        await reader.start()
        try:
            while not self._stopped() and not self._waits():
                self._wake.clear()
                reader.more()
                if self._is_idle() and await self._is_back():
                    return
                if self._is_idle() and self._ahead:
                    await asyncio.sleep(_LAG)  # the lane's reader has to get further first
                    return
                await self._pause(_LOOK)
        finally:
            await reader.stop()

    def _is_idle(self) -> bool:
        return self._at_end and not self._queue.waiting and not self._queue.running

    def _waits(self) -> bool:
        side = self._queue.side
        return side is not None and (side.retry_at > 0 or side.why == "replay")

    def _subject(self) -> str:
        names, tenant = self._partition.names, self._queue.tenant
        return filters.subject_of(names.known, self._partition.number, tenant)

    def _receive(self, message: Message, delivery: Delivery) -> None:
        if self._ahead:
            return
        mine = self._partition.queue_of(message, delivery.seq) == self._queue.name
        if mine and not self._lane.caught(self._queue, delivery.seq, Item(message, delivery)):
            self._ahead = self._at_end = True
            self._wake.set()
            return
        self._seen = delivery.seq
        if mine:
            self._partition.pump()
        if delivery.pending == 0:
            self._at_end = True
            self._wake.set()

    def _empty(self) -> None:
        self._at_end = True
        self._wake.set()

    async def _is_back(self) -> bool:
        """Let the queue go with its lane again, if nothing of it is left behind the lane's reader.

        The stream's leader is asked: a replica may be late, and what was erased never comes.
        """
        upto = self._lane.position
        if self._seen < upto:
            following = await self._next(self._seen + 1)
            if 0 < following <= upto:
                await asyncio.sleep(_LAG)
                return False
        if not self._lane.caught_up(self._queue, upto):
            self._seen = max(self._seen, upto)
            return False
        log.info("caught up", tenant=self._queue.tenant, at=upto)
        return True

    async def _next(self, seq: int) -> int:
        """The first sequence of the tenant from `seq` on, as the stream's leader knows it, or 0."""
        ask: dict[str, Any] = {"seq": seq, "next_by_subj": self._subject()}
        try:
            found = await js.api(self._partition.env.bus, f"STREAM.MSG.GET.{JOURNAL}", ask)
        except JetStreamError as error:
            if error.status == js.NOT_FOUND and error.err_code != js.STREAM_NOT_FOUND:
                return 0
            raise
        return int(found["message"]["seq"])
