"""A replay: a service's own handlers get what the journal has of one tenant once more, in order.

Into the live state, or beside it into a namespace of its own that then takes the live one's place
(a recovery). How far it has come is in KV, so whoever reads the lane next goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog

from tenantry import streams
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery, StoredMessage
from tenantry.bus.reading import AHEAD
from tenantry.errors import LaneLost, Rejection
from tenantry.messages import UNDER_WAY, Cursor, Replay
from tenantry.runtime.attempts import Outcome
from tenantry.service.handler import Handler
from tenantry.wire import headers

if TYPE_CHECKING:
    from tenantry.runtime.behind import Apart
    from tenantry.runtime.lane import Lane

_SAVE = 0.5
_TRIES = 3
_TOLD = 20
_LOOK = 0.25
_FINE = 0.005
"""A pause shorter than this is not made, seconds."""
_LATE = 0.05
"""What a limited replay may make up for, seconds: not a burst after each delay."""
_SPAN = 0.02
_LEAST = 8

log = structlog.get_logger("tenantry.replay")


@dataclass(slots=True)
class _Tally:
    """How far it has come, as :class:`Replay` has it; written there now and then."""

    next: int
    handled: int
    passed: int
    suppressed: int
    failed: int
    failures: tuple[int, ...]

    @classmethod
    def of(cls, replay: Replay) -> _Tally:
        return cls(
            replay.next,
            replay.handled,
            replay.passed,
            replay.suppressed,
            replay.failed,
            replay.failures,
        )


def is_due(replay: Replay | None) -> bool:
    """Whether a replay has something to do now."""
    if replay is None or replay.state not in UNDER_WAY:
        return False
    return replay.state != "ready" or replay.swap or replay.cancel


class Replaying:
    """One replay of one tenant, as far as this replica may carry it."""

    def __init__(self, lane: Lane, tenant: str, apart: Apart, stopped: Callable[[], bool]) -> None:
        self._lane = lane
        self._tenant = tenant
        self._apart = apart
        self._stopped = stopped
        replay = lane.replays.of(tenant)
        assert replay is not None  # noqa: S101  (`is_due` has said so)
        self._replay = replay
        self._tally = _Tally.of(replay)
        self._due = self._saved = time.monotonic()

    async def run(self) -> None:
        """Carry it on until it is done, cancelled, or not ours any more."""
        try:
            if self._replay.cancel:
                await self._end("cancelled")
                return
            if self._replay.state == "asked":
                await self._begin()
            if self._replay.state == "running":
                await self._go_through(self._last())
            if self._stopped() or self._replay.cancel:
                return
            if self._replay.generation is None:
                await self._end("done")
            elif not self._replay.swap:
                await self._end("ready")
            else:
                await self._swap()
        except Rejection as rejection:
            if not isinstance(rejection, LaneLost) and not rejection.retry:
                await self._end("failed", str(rejection))
                return
            raise

    # --- its steps -----------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self._replay.generation is None:
            await self._set_apart(epochs=1)
            if self._replay.reset:
                await self._reset()
        info = await js.api(self._lane.bus, f"STREAM.INFO.{streams.JOURNAL}")
        end = int(info["state"]["last_seq"]) + 1
        self._tally.next = max(self._replay.since, 1)
        await self._change(
            state="running", began=time.time(), end=min(self._replay.until or end, end)
        )
        log.info("replay begins", tenant=self._tenant, replay=self._replay.id)

    async def _set_apart(self, epochs: int) -> None:
        """From here on the tenant's live messages wait; those that are behind us are done with."""
        async with self._apart.lock:
            delivered = await self._lane.consumer.delivered()
            first = min(self._apart.held, default=delivered + 1)

            def apart(row: Cursor) -> Cursor:
                if not self._lane.holds():
                    raise LaneLost("the lane was lost")
                place = row.next if row.behind else max(row.next, first)
                apart_already = row.behind or row.next >= first
                return msgspec.structs.replace(
                    row,
                    behind=True,
                    next=place,
                    since=row.since if apart_already else place,
                    retry_at=0.0,
                    epoch=row.epoch + epochs,
                )

            await self._lane.cursors.change(self._tenant, apart)

    def _last(self) -> int:
        """The sequence where it ends: where the tenant's live messages begin, or before."""
        if self._replay.generation is None:
            return min(self._replay.end, self._cursor.next)
        return self._replay.end

    async def _reset(self) -> None:
        hook = self._lane.service.resets
        if hook is None:
            return
        turn = self._lane.turn(0, row=self._cursor, replaying=True)
        await self._lane.attempts.reset(self._tenant, hook, turn)

    async def _swap(self) -> None:
        """What was filled becomes the live state, once it has all that the live one has."""
        await self._set_apart(epochs=0)
        if not self._replay.until:
            await self._go_through(self._cursor.next)
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

        await self._lane.cursors.change(self._tenant, swapped)
        await self._end("done")

    async def _end(self, state: str, error: str = "") -> None:
        ended = None if state == "ready" else time.time()
        await self._change(state=state, ended=ended, error=error)
        log.info(
            "replay " + state,
            tenant=self._tenant,
            replay=self._replay.id,
            handled=self._tally.handled,
            failed=self._tally.failed,
            why=error,
        )

    async def _change(self, **fields: object) -> None:
        """Write how far it has come."""
        self._saved = time.monotonic()

        def changed(row: Replay | None) -> Replay | None:
            ours = row is not None and row.id == self._replay.id and row.state in UNDER_WAY
            if row is None or not ours or not self._lane.holds():
                raise LaneLost("the replay is not ours any more")
            return msgspec.structs.replace(row, **asdict(self._tally), **fields)

        replay = await self._lane.replays.change(self._tenant, changed)
        assert replay is not None  # noqa: S101  (nobody deletes one that runs)
        self._replay = replay

    # --- its messages --------------------------------------------------------------------------

    async def _go_through(self, end: int) -> None:
        async with self._lane.past.read(
            self._tenant, first=self._tally.next, ahead=self._ahead()
        ) as messages:
            async for message in messages:
                if message.seq >= end:
                    break
                if self._stopped() or self._is_cancelled():
                    await self._change()
                    return
                await self._see_to(message)
                if time.monotonic() - self._saved > _SAVE:
                    await self._change()
        self._tally.next = max(self._tally.next, end)
        await self._change()

    def _ahead(self) -> int:
        """A slow replay reads little at once: the arrival of many is felt by whoever else works."""
        rate = self._replay.rate
        return min(AHEAD, max(_LEAST, int(rate * _SPAN))) if rate else AHEAD

    def _is_cancelled(self) -> bool:
        row = self._lane.replays.of(self._tenant)
        return row is not None and row.cancel

    async def _see_to(self, message: StoredMessage) -> None:
        name = message.subject.split(".", 3)[3]
        handler = self._lane.handlers.get(name)
        only = message.headers.get(headers.ONLY, headers.HISTORY).removeprefix(headers.HISTORY)
        ours = only in ("", self._lane.service.name)
        wanted = not self._replay.actions or name in self._replay.actions
        if handler is not None and ours:
            if not (wanted and handler.replayable) or message.seq in self._replay.skip:
                self._tally.passed += 1
            else:
                await self._handle(message, handler)
                await self._keep_pace()
        self._tally.next = message.seq + 1

    async def _handle(self, message: StoredMessage, handler: Handler) -> None:
        row = self._cursor
        generation = self._replay.generation
        for attempt in range(1, _TRIES + 1):
            turn = self._lane.turn(
                message.seq,
                row=row,
                replaying=True,
                generation=row.generation if generation is None else generation,
            )
            delivery = Delivery(attempt, message.seq, message.time, 0)
            outcome, why = await self._lane.attempts.run(handler, message, delivery, turn)
            if outcome is Outcome.LOST:
                raise LaneLost("the lane was lost")
            if outcome is not Outcome.FAILED or attempt == _TRIES:
                break
            await asyncio.sleep(handler.retry.pause(attempt))
        tally = self._tally
        tally.suppressed += turn.suppressed
        if why is None or outcome is Outcome.LATE:  # again, after a kill
            tally.handled += 1
            return
        log.warning("left out of the replay", tenant=self._tenant, seq=message.seq, why=why.logged)
        tally.failed += 1
        tally.failures = (*tally.failures, message.seq)[:_TOLD]

    async def _keep_pace(self) -> None:
        """Not more than the rate that was asked for; whoever ends it need not wait so long."""
        if not self._replay.rate:
            return
        now = time.monotonic()
        self._due = max(self._due + 1 / self._replay.rate, now - _LATE)
        while (left := self._due - time.monotonic()) > _FINE:
            if self._stopped() or self._is_cancelled():
                return
            await asyncio.sleep(min(left, _LOOK))

    @property
    def _cursor(self) -> Cursor:
        return self._lane.cursors.of(self._tenant)
