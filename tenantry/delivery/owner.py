"""Owns one partition for a service: reads it into a lane and saves its checkpoint.

It begins with what the former owner left (`claim`). Messages go from the reader into the lane,
`Serving` runs what the lane lets begin, and every 100 ms with progress the checkpoint says how far
it has come. `release` hands the partition over. Who has lost it, because its lease was fenced or
its checkpoint is another's, does nothing more that counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable

import structlog

from tenantry import streams, subjects, tasks
from tenantry.bus import Message
from tenantry.bus.jetstream import Delivery
from tenantry.bus.reader import Reader
from tenantry.delivery import filters, timing
from tenantry.delivery.catch_up import CatchUp
from tenantry.delivery.checkpoints import LEFT, Erased, Last, Taken
from tenantry.delivery.claim import Claim
from tenantry.delivery.environment import Environment, Item
from tenantry.delivery.hold import Hold
from tenantry.delivery.journal_end import restore_end
from tenantry.delivery.lane import LANE_MAX, Lane, Queue
from tenantry.delivery.replay import ReplayRun, is_due
from tenantry.delivery.serving import Serving
from tenantry.errors import JetStreamError, Rejection
from tenantry.messages.checkpoints import Checkpoint

_AGAIN = 0.2
_LOOK = 1.0
"""Between two looks for handlers that hang, seconds."""

_SWEEP = 5
"""Looks after which the sidelined queues are looked at, too."""

_FULL = LANE_MAX * 3 // 4

log = structlog.get_logger("tenantry.delivery")


def released_subject(service: str, partition: int | str) -> str:
    """The subject on which the owner of a partition tells that it has released it."""
    return f"platform.released.{service}.{partition}"


class Owner:
    """One partition in this worker's hands; `lost` is called when it is another's."""

    def __init__(self, env: Environment, claim: Claim, *, lost: Callable[[Owner], None]) -> None:
        self.env = env
        self.number = claim.partition
        self.names = claim.names
        self.is_lost = False
        self.pending = 0
        """Messages that the journal has for the reader, as the last one told."""
        self._tell_lost = lost
        self._loop = asyncio.get_running_loop()
        self._lease = claim.lease
        self._last = claim.last
        self._interval = timing.CHECKPOINT
        self.hold = Hold(lost=lambda: self.is_lost, ours=self.ours, wait=self.wait)
        self.lane = Lane[Item](
            claim.last.record,
            suspects=env.suspects,
            changed=lambda: self._loop.call_soon(self._lane_changed),  # when it is done
        )
        self.serving = Serving(
            env,
            self.lane,
            self.hold,
            since=claim.last.record.since,
            newer=claim.names.newer,
            ended=self._ended,
            noted=self._noted,
        )
        self._reader = Reader(
            env.bus,
            streams.JOURNAL,
            filters.subject_of(claim.names.known, claim.partition),
            self.lane.read_to + 1,
            receive=self._receive,
            room=self.lane.room,
        )
        self._saving: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._guard: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._catching: dict[str, CatchUp] = {}
        self._replaying: dict[str, ReplayRun] = {}
        self._changed = asyncio.Event()
        self._forget: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Begin to read."""
        await self._reader.start()
        self._forget = self.env.bus.on_reconnect(self._reconnected)
        self._tasks.append(asyncio.create_task(self._sweep()))
        self.look_at_all()

    # --- whether it is ours --------------------------------------------------------------------

    def ours(self) -> bool:
        """Tell whether nobody else can have taken the partition."""
        return not self.is_lost and self.env.leases.valid

    async def wait(self) -> bool:
        """Wait while that is in doubt; False where the partition is lost."""
        while not self.is_lost and not self.env.leases.valid:
            self._changed.clear()
            await self._changed.wait()
        return not self.is_lost

    def renewed(self) -> None:
        """The lease was renewed: go on, where that was in doubt."""
        self._changed.set()
        self.serving.pump_soon()

    def lose(self, why: str) -> None:
        """Let go of everything: it is another's."""
        if not self.is_lost:
            log.warning("partition lost", **self._about(), why=why)
            self._let_go()
            self._tell_lost(self)

    def _let_go(self) -> None:
        self.is_lost = self.lane.leaving = True
        self._changed.set()
        self.env.suspects.leave(self.lane)

    def _about(self) -> dict[str, object]:
        return {"service": self.env.service.name, "partition": self.number}

    # --- messages ------------------------------------------------------------------------------

    def _receive(self, message: Message, delivery: Delivery) -> None:
        """Take a message from the reader."""
        lane = self.lane
        self.pending = delivery.pending
        name = self.queue_of(message, delivery.seq)
        lane.arrived(name, delivery.seq, Item(message, delivery))
        if name:
            self.serving.pump_soon()
            if self._timer is None:
                self._touch()
            if lane.held >= _FULL and self._guard is None:
                self._guard = self._loop.call_later(timing.BACKLOG_LOOK, self._look_at_backlog)
        elif delivery.seq > self._last.record.read_to + timing.NOT_OURS:
            lane.dirty = True  # else all that is not for us would be read again
            self._touch()

    def queue_of(self, message: Message, seq: int) -> str:
        """The queue that a message belongs to; empty for one that is not for this service."""
        _, _, tenant, name = message.subject.split(".", 3)
        if name not in self.names.known:
            return ""
        if not filters.is_for(self.env.service.name, message.headers):
            return ""
        if self.names.unordered and self.names.is_unordered(name, seq):
            return self.lane.unordered_name(tenant, seq)
        return tenant

    def _look_at_backlog(self) -> None:
        self._guard = None
        lane = self.lane
        if lane.leaving or lane.held < _FULL:
            return
        if (queue := lane.look_at_backlog(timing.BACKLOG_LOOK)) is not None:
            log.info("sidelined for its backlog", **self._about(), tenant=queue.tenant)
            self.look(queue)
        self._reader.more()
        self._guard = self._loop.call_later(timing.BACKLOG_LOOK, self._look_at_backlog)

    def pump(self) -> None:
        """Run what the lane lets begin."""
        self.serving.pump_soon()

    def _noted(self) -> None:
        """A message has ended."""
        self._touch()
        self._reader.more()

    def _lane_changed(self) -> None:
        self._touch()
        self.serving.pump_soon()

    def _reconnected(self) -> None:
        """A server that was away may have lost the end of the journal."""
        self._tasks.append(self._loop.create_task(self._look_at_end()))

    async def _look_at_end(self) -> None:
        while not self.is_lost:
            try:
                await restore_end(self.env.bus, self.lane.position)
                break
            except (Rejection, JetStreamError) as error:
                log.debug("end of the journal unknown", **self._about(), why=str(error))
                await asyncio.sleep(_AGAIN)
        self._tasks = [task for task in self._tasks if not task.done()]

    # --- sidelined queues and replays ----------------------------------------------------------

    def _ended(self, queue: Queue[Item]) -> None:
        """A message of a sidelined queue has ended."""
        if (catching := self._catching.get(queue.name)) is not None:
            catching.wake()
        else:
            self.look(queue)
        if (replaying := self._replaying.get(queue.tenant)) is not None:
            replaying.wake()

    def look(self, queue: Queue[Item]) -> None:
        """See to it that a sidelined queue is read by a reader of its own."""
        if queue.side is not None and not self.lane.leaving and queue.name not in self._catching:
            self._catching[queue.name] = CatchUp(self, queue, self._caught_up)

    def _caught_up(self, queue: Queue[Item]) -> None:
        self._catching.pop(queue.name, None)
        self.look(queue)

    def look_at_replay(self, tenant: str) -> None:
        """Carry on a replay of a tenant, where one is due."""
        if self.lane.leaving:
            return
        if (running := self._replaying.get(tenant)) is not None:
            running.wake()
        elif is_due(self.env.replays.of(tenant)):
            self._replaying[tenant] = ReplayRun(self, tenant, self._replayed)

    def _replayed(self, tenant: str) -> None:
        self._replaying.pop(tenant, None)
        self.look_at_replay(tenant)
        for queue in [each for each in self.lane.sidelined.values() if each.tenant == tenant]:
            self._ended(queue)

    def erased(self, tenant: str, upto: int) -> None:
        """A tenant's messages up to `upto` were erased: end what is in hand of them."""
        self.serving.drop(tenant, upto)
        if (replaying := self._replaying.get(tenant)) is not None:
            replaying.cut_off()

    def holds_back(self, tenant: str) -> bool:
        """Tell whether a replay is at work here for which a tenant's live messages wait."""
        running = self._replaying.get(tenant)
        return running is not None and running.holds_back

    def look_at_all(self) -> None:
        """The same for all tenants of the partition."""
        for tenant in self.env.replays.tenants():
            if subjects.partition(tenant) == self.number:
                self.look_at_replay(tenant)
        for queue in list(self.lane.sidelined.values()):
            self.look(queue)

    async def _sweep(self) -> None:
        for count in itertools.count(1):
            await asyncio.sleep(_LOOK)
            self.serving.look_for_hung()
            if count % _SWEEP == 0:
                self.look_at_all()

    # --- the checkpoint ------------------------------------------------------------------------

    def _touch(self) -> None:
        """The checkpoint should say something new, soon."""
        lane = self.lane
        if self._saving is not None or not lane.dirty or self.is_lost:
            return
        if lane.urgent or lane.unsaved >= timing.UNSAVED:
            self._save_soon()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._save_soon)

    def _save_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._saving is None and not self.is_lost:
            self._saving = self._loop.create_task(self._save(self._lease))

    async def save(self) -> bool:
        """Write the checkpoint as it is now; False where the partition is lost."""
        while self._saving is not None:
            await asyncio.wait({self._saving})
        saving = self._saving = self._loop.create_task(self._save(self._lease))
        await asyncio.wait({saving})
        return not self.is_lost

    async def _save(self, owner: str) -> None:
        lane = self.lane
        try:
            while not self.is_lost:
                record = lane.snapshot(owner, self.serving.age)
                if await self._write(record):
                    lane.saved()
                    return
                lane.dirty = True
        finally:
            self._saving = None
            if owner and not self.is_lost:
                self.serving.pump_soon()
                self._loop.call_soon(self._touch)

    async def _write(self, record: Checkpoint) -> bool:
        """Write a snapshot; False where another one must be written."""
        try:
            revision = await self.env.checkpoints.save(self.number, record, self._last)
        except Taken:
            self.lose("another instance has claimed it")
            return False
        except Erased as erased:
            self._last.revision = erased.revision
            for name in erased.names:
                self.lane.erased(name)
            for queue in [q for q in self.lane.sidelined.values() if q.name in erased.names]:
                self._ended(queue)
            return False
        except (Rejection, JetStreamError) as error:
            log.warning("checkpoint not written", **self._about(), why=str(error))
            await asyncio.sleep(_AGAIN)
            return False
        self._last = Last(record, revision)
        size = 100 + 100 * (len(record.open) + len(record.begun))
        self._interval = max(timing.CHECKPOINT, size / timing.BYTES_A_SECOND)
        return True

    # --- leaving -------------------------------------------------------------------------------

    async def release(self, deadline: Callable[[], float], ending: Callable[[], bool]) -> None:
        """Hand the partition over; what runs may end until `deadline()` (loop time).

        Where the worker is `ending`, a server that stays away is not waited for: others may fence
        its lease. Else they would wait for this partition as long as it lives.
        """
        if not self.is_lost:
            self.lane.leaving = True
            works = self._works()
            for work in works:
                work.wake()
            await self._reader.stop()
            ended = await self.serving.finish(deadline)
            ended &= await _end_by(deadline, [work.task for work in works])
            await self._save_last("" if ended else LEFT, ending)
            if not self.is_lost:
                self._let_go()
                self.env.bus.post(released_subject(self.env.service.name, self.number))
                log.debug("partition released", **self._about(), clean=ended)
        await self.end()

    def _works(self) -> list[CatchUp | ReplayRun]:
        return [*self._catching.values(), *self._replaying.values()]

    async def _save_last(self, owner: str, ending: Callable[[], bool]) -> None:
        """Write the last checkpoint."""
        while self._saving is not None:
            await asyncio.wait({self._saving})
        while not self.is_lost:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timing.CALL):
                    await self._save(owner)
                    return
            if ending():
                return

    async def end(self) -> None:
        """Stop everything; nothing is written any more."""
        self._let_go()
        self._forget()
        for timer in (self._timer, self._guard):
            if timer is not None:
                timer.cancel()
        await self._reader.stop()
        works = (work.task for work in self._works())
        await tasks.end(*self._tasks, self._saving, *works)
        await self.serving.cut_off()


async def _end_by(deadline: Callable[[], float], running: list[asyncio.Task[None]]) -> bool:
    """Wait for tasks, and cut off those that do not end in time; False: there were some."""
    loop = asyncio.get_running_loop()
    left = [task for task in running if not task.done()]
    while left and (seconds := deadline() - loop.time()) > 0:
        _, late = await asyncio.wait(left, timeout=min(seconds, _AGAIN))
        left = list(late)
    await tasks.end(*left)
    return not left
