"""A replay: a service's own handlers get what the journal has of one tenant once more, in order.

Into the live state, or beside it into a namespace of its own that then takes the live one's place
(a recovery). How far it has come is in KV, so the next owner of the partition goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace

import msgspec
import structlog

from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery, StoredMessage
from tenantry.bus.reading import AHEAD, read
from tenantry.context.fence import Fence
from tenantry.delivery import filters, settlement
from tenantry.delivery.partition import Partition
from tenantry.delivery.settlement import DeadLetter, Decision, Outcome, Release, RetryAfter
from tenantry.errors import JetStreamError, LaneLost, Rejection
from tenantry.messages import UNDER_WAY, Cursor, Replay
from tenantry.service.handler import Handler
from tenantry.streams import JOURNAL

_TRIES = 3
_SAVE = 0.5
"""Between two notes of how far it has come, seconds."""

_TOLD = 20
_LOOK = 0.25
_AGAIN = 0.5
_FINE = 0.005
"""A pause shorter than this is not made, seconds."""

_LATE = 0.05
"""The delay that a limited replay may make up for, seconds: no burst after each delay."""

_SPAN = 0.02
_LEAST = 8

log = structlog.get_logger("tenantry.replay")


@dataclass(slots=True)
class _Progress:
    """How far it has come, as :class:`Replay` has it; written there now and then."""

    next: int
    handled: int
    passed: int
    suppressed: int
    failed: int
    failures: tuple[int, ...]

    @classmethod
    def of(cls, replay: Replay) -> _Progress:
        return cls(
            replay.next,
            replay.handled,
            replay.passed,
            replay.suppressed,
            replay.failed,
            replay.failures,
        )


def is_due(replay: Replay | None) -> bool:
    """Tell whether a replay has something to do now."""
    if replay is None or replay.state not in UNDER_WAY:
        return False
    return replay.state != "ready" or replay.swap or replay.cancel


class ReplayRun:
    """The replay of one tenant, as far as this owner carries it; calls `done` when it ends."""

    def __init__(self, partition: Partition, tenant: str, done: Callable[[str], None]) -> None:
        self._partition = partition
        self._env = partition.env
        self._lane = partition.lane
        self._handlers = partition.env.service.durable
        self._tenant = tenant
        self._wake = asyncio.Event()
        replay = self._env.replays.of(tenant)
        assert replay is not None  # noqa: S101  (`is_due` has said so)
        self._replay = replay
        self._progress = _Progress.of(replay)
        self._due = self._saved = time.monotonic()
        self._is_cut_off = False
        self.holds_back = replay.generation is None
        """True if the tenant's live messages wait for it."""
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(lambda _: done(tenant))

    def wake(self) -> None:
        """Something may have changed."""
        self._wake.set()

    def cut_off(self) -> None:
        """Its tenant was erased: nothing counts any more that a handler still does."""
        self._is_cut_off = True
        self.task.cancel()

    # --- inside --------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._carry_on()
        except LaneLost as lost:
            log.info("replay left", tenant=self._tenant, why=lost.message)
        except (Rejection, JetStreamError, TimeoutError) as error:
            if isinstance(error, Rejection) and not error.retry:
                with contextlib.suppress(Rejection, JetStreamError):
                    await self._end("failed", str(error))
                    return
            log.warning("replay waits", tenant=self._tenant, why=str(error))
            await self._pause(_AGAIN)
        except Exception:
            log.exception("replay waits", tenant=self._tenant)
            await self._pause(_AGAIN)

    async def _carry_on(self) -> None:
        """Carry it on until it is done, cancelled, or not ours any more."""
        if self._replay.cancel:
            await self._end("cancelled")
            return
        if self._replay.state == "asked":
            await self._begin()
        elif self.holds_back:
            await self._hold_back()
        if self._replay.state == "running":
            await self._finish_former()
            await self._go_through(self._last())
        if self._stopped() or self._replay.cancel:
            return
        if self.holds_back:
            await self._end("done")
        elif not self._replay.swap:
            await self._end("ready")
        else:
            await self._swap()

    def _stopped(self) -> bool:
        return self._lane.leaving or self._lost()

    def _lost(self) -> bool:
        return self._is_cut_off or self._partition.hold.lost()

    async def _pause(self, seconds: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    # --- its steps -----------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self.holds_back:
            await self._hold_back()
            await self._change_cursor(lambda row: msgspec.structs.replace(row, epoch=row.epoch + 1))
            if self._replay.reset:
                await self._reset()
        info = await js.api(self._env.bus, f"STREAM.INFO.{JOURNAL}")
        end = int(info["state"]["last_seq"]) + 1
        self._progress.next = max(self._replay.since, 1)
        await self._change(
            state="running", began=time.time(), end=min(self._replay.until or end, end)
        )
        log.info("replay begins", tenant=self._tenant, replay=self._replay.id)

    async def _hold_back(self) -> None:
        """Have the tenant's live messages wait; returns when none of them runs."""
        names = [self._tenant]
        if self._partition.names.unordered:
            names.append(f"{self._tenant}#")
        for name in names:
            queue = self._lane.sideline(name)
            while queue.running and not self._stopped():
                await self._pause(_LOOK)
                self._lane.sideline(name)
        if self._stopped() or not await self._partition.save():
            raise LaneLost("the partition was lost")

    async def _finish_former(self) -> None:
        """Finish what a former owner has committed of it, and died before all was written."""
        cursor, generation = self._env.cursors.of(self._tenant), self._replay.generation
        if generation is not None:
            cursor = msgspec.structs.replace(cursor, generation=generation)
        await self._env.attempts.finish(self._tenant, cursor, first=self._progress.next)

    def _last(self) -> int:
        """The sequence where it ends: where the tenant's live messages begin, or before."""
        return min(self._replay.end, self._live()) if self.holds_back else self._replay.end

    def _live(self) -> int:
        queue = self._lane.sidelined.get(self._tenant)
        return queue.side.next if queue is not None and queue.side is not None else 1 << 62

    async def _reset(self) -> None:
        hook = self._env.service.resets
        if hook is not None:
            fence = self._fence(0, self._env.cursors.of(self._tenant))
            await self._env.attempts.reset(self._tenant, hook, fence)

    async def _swap(self) -> None:
        """Make what was filled the live state, once it has all that the live one has."""
        self.holds_back = True
        await self._hold_back()
        if not self._replay.until:
            await self._go_through(self._live())
            if self._stopped() or self._replay.cancel:
                return

        def swapped(row: Cursor) -> Cursor:
            if row.generation == self._replay.generation:
                return row
            return msgspec.structs.replace(
                row,
                generation=self._replay.generation,
                former=row.generation,
                epoch=row.epoch + 1,
            )

        await self._change_cursor(swapped)
        await self._end("done")

    async def _end(self, state: str, error: str = "") -> None:
        ended = None if state == "ready" else time.time()
        await self._change(state=state, ended=ended, error=error)
        log.info(
            "replay " + state,
            tenant=self._tenant,
            replay=self._replay.id,
            handled=self._progress.handled,
            failed=self._progress.failed,
            why=error,
        )

    async def _change_cursor(self, change: Callable[[Cursor], Cursor]) -> None:
        if not await self._partition.hold.wait():
            raise LaneLost("the partition was lost")
        await self._env.cursors.change(self._tenant, change)

    async def _change(self, **fields: object) -> None:
        """Write how far it has come."""
        self._saved = time.monotonic()
        if not await self._partition.hold.wait():
            raise LaneLost("the partition was lost")

        def changed(row: Replay | None) -> Replay | None:
            ours = row is not None and row.id == self._replay.id and row.state in UNDER_WAY
            if row is None or not ours:
                raise LaneLost("the replay is not ours any more")
            return msgspec.structs.replace(row, **asdict(self._progress), **fields)

        replay = await self._env.replays.change(self._tenant, changed)
        assert replay is not None  # noqa: S101  (nobody deletes one that runs)
        self._replay = replay

    # --- its messages --------------------------------------------------------------------------

    async def _go_through(self, end: int) -> None:
        names = self._partition.names
        subject = filters.subject_of(names.known, self._partition.number, self._tenant)
        found = read(
            self._env.bus, JOURNAL, subject, first=self._progress.next, ahead=self._ahead()
        )
        async with aclosing(found) as messages:
            async for message in messages:
                if message.seq >= end:
                    break
                if self._stopped() or self._is_cancelled():
                    await self._change()
                    return
                await self._see_to(message)
                if time.monotonic() - self._saved > _SAVE:
                    await self._change()
        self._progress.next = max(self._progress.next, end)
        await self._change()

    def _ahead(self) -> int:
        """A slow replay reads little at once: the arrival of many is felt by whoever else works."""
        rate = self._replay.rate
        return min(AHEAD, max(_LEAST, int(rate * _SPAN))) if rate else AHEAD

    def _is_cancelled(self) -> bool:
        row = self._env.replays.of(self._tenant)
        return row is not None and row.cancel

    async def _see_to(self, message: StoredMessage) -> None:
        name = message.subject.split(".", 3)[3]
        handler = self._handlers.get(name)
        ours = filters.is_for(self._env.service.name, message.headers, replay=True)
        wanted = not self._replay.actions or name in self._replay.actions
        if handler is not None and ours:
            if not (wanted and handler.replayable) or message.seq in self._replay.skip:
                self._progress.passed += 1
            else:
                await self._handle(message, handler)
                if self._replay.rate:
                    await self._keep_pace()
        self._progress.next = message.seq + 1

    async def _handle(self, message: StoredMessage, handler: Handler) -> None:
        cursor, failed = self._env.cursors.of(self._tenant), 0
        while True:
            fence = self._fence(message.seq, cursor)
            delivery = Delivery(failed + 1, message.seq, message.time, 0)
            result = await self._env.attempts.run(handler, message, delivery, fence)
            self._progress.suppressed += fence.suppressed
            if result.outcome is Outcome.DONE:
                self._progress.handled += 1
                return
            retry = replace(handler.retry, tries=min(_TRIES, handler.retry.tries))
            decision = settlement.decide(result, retry, failed)
            if not isinstance(decision, RetryAfter):
                break
            failed += decision.counts
            await asyncio.sleep(decision.pause)
        self._count(message, decision)

    def _count(self, message: StoredMessage, decision: Decision) -> None:
        progress = self._progress
        if isinstance(decision, Release):
            raise LaneLost("the partition was lost")
        if not isinstance(decision, DeadLetter):
            progress.handled += 1
            return
        why = decision.why.logged
        log.warning("left out of the replay", tenant=self._tenant, seq=message.seq, why=why)
        progress.failed += 1
        progress.failures = (*progress.failures, message.seq)[:_TOLD]

    def _fence(self, seq: int, cursor: Cursor) -> Fence:
        generation = self._replay.generation
        return Fence(
            self._lost,
            self._partition.hold.wait,
            seq=seq,
            epoch=cursor.epoch,
            generation=cursor.generation if generation is None else generation,
            replaying=True,
            claim=self._partition.hold.claim,
        )

    async def _keep_pace(self) -> None:
        """Not more than the rate that was asked for; whoever ends it need not wait so long."""
        now = time.monotonic()
        self._due = max(self._due + 1 / self._replay.rate, now - _LATE)
        while (left := self._due - time.monotonic()) > _FINE:
            if self._stopped() or self._is_cancelled():
                return
            await asyncio.sleep(min(left, _LOOK))
