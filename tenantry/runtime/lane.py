"""One lane of a service: one partition of the journal, read by one replica at a time.

Which replica reads a lane follows from who is alive (`Members`), that only one does is the pin's
doing. This is the side of the lane towards NATS: the pin, its terms, what is acknowledged. What
happens to each tenant's messages is in `tenants`. See docs/decisions/0011-a-tenant-apart.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from tenantry import streams, tasks
from tenantry.bus import Bus, Message, Pull
from tenantry.bus.jetstream import Delivery
from tenantry.context.turn import Turn
from tenantry.errors import JetStreamError, Rejection, UnknownAction
from tenantry.messages import Cursor, Replay
from tenantry.rows import Rows
from tenantry.runtime import journal
from tenantry.runtime.attempts import Attempts
from tenantry.runtime.consumer import Consumer
from tenantry.runtime.letters import Letters
from tenantry.runtime.past import Past
from tenantry.runtime.tenants import Tenants
from tenantry.runtime.unordered import Unordered
from tenantry.service.handler import Handler
from tenantry.service.service import Service
from tenantry.wire import headers

ACK, NAK, PROGRESS = b"+ACK", b"-NAK", b"+WPI"
_SLOTS = 16
_SETTLE = 0.2
_POLL = 0.1
_GATHER = 2.0
_SURE = 2
_MOST = 256
_AGAIN = 0.5
_KNOCK = 2.0
_SWEEP = 5.0
_REMEMBERED = 2048

log = structlog.get_logger("tenantry.lane")


class Lane:
    """Reads one lane while it is this replica's turn.

    `lost` is called when the consumer seems to be gone.
    """

    def __init__(
        self,
        bus: Bus,
        service: Service,
        partition: int,
        attempts: Attempts,
        cursors: Rows[Cursor],
        replays: Rows[Replay | None],
        *,
        lost: Callable[[], None],
    ) -> None:
        self.lost = False
        """Whether somebody should look if the consumer is still there."""
        self.outdated = False
        """Whether a newer version has been here: then what we do not know may be for that one."""
        self.names: frozenset[str] = frozenset(service.durable)
        """What the consumer delivers, as `<service>.<action>`."""
        self.free = frozenset(n for n, each in service.durable.items() if not each.ordered)
        """The actions that no order binds, …"""
        self.mark: int | None = 0
        """… in what comes after this sequence; None where that is to be found out."""
        self.bus = bus
        self.service = service
        self.handlers: Mapping[str, Handler] = service.durable
        self.attempts = attempts
        self.cursors = cursors
        self.replays = replays
        self.letters = Letters(bus, service.name)
        self._unordered = Unordered(self)
        self.partition = partition
        self.consumer = Consumer(bus, service.name, partition)
        self.past = Past(bus, service.name, partition)
        self.size = min(_SLOTS, max(2, service.concurrency))
        """How many messages are in hand at a time."""
        self._tell_lost = lost
        self.tenants = Tenants(self)
        self._alone: set[asyncio.Task[None]] = set()
        self._finishing: list[asyncio.Task[None]] = []
        self._live: dict[str, Message] = {}
        self._done: dict[int, None] = {}
        """The latest sequences that were settled: their acknowledgement may get lost."""
        self._pull: Pull | None = None
        self._pending = 0
        self._leaving = False
        self._term = 0
        self._pin = ""
        self.settled = asyncio.Event()
        """Set while the lane is in order: what a former reader left is known, and is here."""
        self._missing: int | None = None
        """While a term begins, how many messages have to come again before anything new may."""
        self._settling: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None

    # --- taking and leaving --------------------------------------------------------------------

    @property
    def reading(self) -> bool:
        """Whether this replica reads the lane now."""
        return self._pull is not None

    @property
    def lag(self) -> int:
        """Messages that wait for this replica, as the newest one told, and those in its hands."""
        return self._pending + len(self._live) if self.reading else 0

    async def take(self) -> None:
        """Begin to read."""
        if self._pull is not None:
            return
        pull = Pull(
            self.bus,
            streams.JOURNAL,
            self.consumer.name,
            receive=self._receive,
            room=self._room,
            lost=self._on_lost,
            group=journal.GROUP,
        )
        await pull.start()
        self._pull = pull
        self._ticker = asyncio.create_task(self._tick())

    def _room(self) -> int:
        """How many messages may come: while a term begins only what is still missing.

        One may come at any time that there is no pin, since with it the server gives one.
        """
        if self._leaving:
            return 0
        if self._missing is None:
            return self.size - len(self._live)
        pinned = self._pull is not None and self._pull.pin
        return max(self._missing - len(self._live), 0 if pinned else 1)

    async def leave(self, deadline: float) -> None:
        """Stop to read: finish what runs until `deadline` (loop time), give back the rest.

        The pin is kept, by pulls that take nothing, as long as something runs here; then it is
        given up, so that the next replica need not wait for it to time out.
        """
        if self._pull is None:
            return
        self._leaving = True
        self.settled.set()
        self._pull.wake()
        await self._finish(deadline)
        if self._live:
            await self._pull.quiet()
        before = await self.consumer.pinned()
        await self._pull.stop()
        await tasks.end(self._ticker, self._settling)
        if self.bus.connected:  # else they come again by themselves
            for reply in self._live:
                await self._say(reply, NAK)
        self._live.clear()
        self.tenants.clear()
        await self.consumer.let_go(self._pull.pin, before)
        self._pull, self._leaving, self._pin = None, False, ""
        self.settled.clear()
        self._missing = None

    async def _finish(self, deadline: float) -> None:
        """Wait for what runs, and cut off what does not end in time."""
        running = [*self._alone, *self.tenants.leave()]
        if running:
            loop = asyncio.get_running_loop()
            self._finishing = running
            _, late = await asyncio.wait(running, timeout=max(0.0, deadline - loop.time()))
            self.cut_off()
            if late:
                await asyncio.wait(late, timeout=2.0)

    def cut_off(self) -> None:
        """End what is still waited for while the lane is left."""
        for task in self._finishing:
            task.cancel()

    def made_anew(self) -> None:
        """The consumer was gone and delivers from the start again: what it delivers is new."""
        self._done.clear()

    def _on_lost(self) -> None:
        self.lost = True
        self._tell_lost()

    # --- whether it is ours --------------------------------------------------------------------

    def holds(self) -> bool:
        """Whether the lane is certainly ours now: the server can't have given it to another."""
        pull = self._pull
        return pull is not None and time.monotonic() < pull.served + journal.HOLD

    def ready(self) -> bool:
        """Whether it is ours, and everything is known that a former reader has left."""
        return self.holds() and self.settled.is_set() and not self._leaving

    @property
    def leaving(self) -> bool:
        """Whether nothing new may begin."""
        return self._leaving

    def turn(self, seq: int, *, ordered: bool = True, row: Cursor, **more: Any) -> Turn:
        """A turn that counts as long as the lane is ours without a break."""
        term = self._term

        def held() -> bool:
            return self._term == term and self.holds()

        more.setdefault("generation", row.generation)
        return Turn(held, seq=seq, epoch=row.epoch, ordered=ordered, **more)

    def is_free(self, handler: Handler, seq: int) -> bool:
        """Whether no order binds this message."""
        return not handler.ordered and seq > (self.mark or 0)

    # --- what comes ----------------------------------------------------------------------------

    def _receive(self, message: Message) -> None:
        delivery = Delivery.of(message)
        seq, self._pending = delivery.seq, delivery.pending
        _, _, name, action = message.subject.split(".", 3)
        pull = self._pull
        if pull is not None and pull.pin != self._pin:
            self._pin = pull.pin
            self._begin_term()
        only = message.headers.get(headers.ONLY) if message.headers else None
        if name.startswith("_") or seq in self._done or only not in (None, self.service.name):
            self.aside(self.settle(message))
            return
        handler = self.handlers.get(action)
        if handler is not None and not handler.ordered:
            self.keep(message)
            self.aside(self._unordered.serve(name, message, handler))
            return
        self.tenants.hold(name, seq, message)

    def _begin_term(self) -> None:
        """What came before may be in other hands, or comes again: let go of all of it.

        A term begins with a new pin, and whenever something had to be dropped: its tenant's later
        messages must not run before it has come again.
        """
        self._term += 1
        if self._leaving:
            return  # it is given back in a moment
        self.settled.clear()
        self._missing = 0
        dropped = list(self._live)
        self._live.clear()
        self.tenants.let_go()
        if self._settling is not None:
            self._settling.cancel()
        self._settling = asyncio.create_task(self._settle(dropped))

    async def _settle(self, dropped: list[str]) -> None:
        """Let what is outstanding come again, and learn what the former reader has written.

        It comes before anything new. nats-server turns its queue of redeliveries round while no
        reader takes from it, so the first ones may come last: what is held is put in order again.
        """
        while not self.holds():  # noqa: ASYNC110  (time itself decides)
            await asyncio.sleep(_POLL)
        for reply in dropped:  # ours to give back: whoever else has one has lost the lane
            await self._say(reply, NAK)
        await self._gather(len(dropped))
        self._missing = None
        await self._learn()
        self.settled.set()
        self.tenants.look_at_all()

    async def _gather(self, dropped: int) -> None:
        """Wait until all that is not acknowledged is in our hands.

        What a former reader had comes again when ACK_WAIT is over, and before anything new; as
        long as that one believes that it holds the lane, it may still say that it is at work. Only
        time in which the server answers counts: while it does not, nothing can come.
        """
        patience = journal.ACK_WAIT + journal.HOLD + _GATHER
        began, complete = time.monotonic(), 0
        self._missing = dropped
        while (waited := time.monotonic() - began) < patience:
            self.wake()
            await asyncio.sleep(_SETTLE)
            # Before the server counts: what comes meanwhile is in its count, not in ours.
            ours = len({Delivery.of(message).seq for message in self._live.values()})
            try:
                outstanding = await self.consumer.outstanding()
            except (Rejection, JetStreamError):
                began = time.monotonic()
                continue
            complete = complete + 1 if outstanding <= ours else 0
            if complete and (not outstanding or complete == _SURE):
                return
            if waited > journal.ACK_WAIT:
                self._missing = min(outstanding, _MOST)
        # Where unordered messages are tried again later, NATS counts those too.
        log.warning("not all came again", consumer=self.consumer.name)

    async def _learn(self) -> None:
        """Know what the former reader has written of tenants apart."""
        while True:
            try:
                await self.cursors.sync()
                await self.replays.sync()
                if self.mark is None:
                    self.mark = await self.consumer.mark(self.free)
            except (Rejection, JetStreamError, TimeoutError) as error:
                log.warning("lane waits", consumer=self.consumer.name, why=str(error))
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def lay_down(self, message: Message, why: Rejection) -> bool:
        """Make a dead letter of a message; False where that can't be done now."""
        delivery = Delivery.of(message)
        try:
            await self.letters.lay(message, delivery, why)
        except (Rejection, JetStreamError) as error:
            log.error("dead letter not written", seq=delivery.seq, why=str(error))
            return False
        return True

    def unknown(self, subject: str) -> UnknownAction:
        """What a message of our own is met with that we have no handler for."""
        return UnknownAction(f"{self.service.name} {self.service.version} does not know {subject}")

    # --- telling the journal -------------------------------------------------------------------

    def wake(self) -> None:
        """There may be room again."""
        if self._pull is not None:
            self._pull.wake()

    def keep(self, message: Message) -> None:
        """A message is in hands here: the journal is told so until it is settled."""
        self._live[message.reply] = message

    def drop(self, message: Message) -> None:
        """Let go of a message in order: it comes again, and nothing later may run before."""
        if message.reply in self._live:  # else a new term has begun since
            self._begin_term()

    def is_done(self, seq: int) -> bool:
        """Whether a message was settled lately: then only its acknowledgement was lost."""
        return seq in self._done

    def let_go(self, message: Message) -> None:
        """Say nothing of a message: it comes again by itself."""
        self._live.pop(message.reply, None)

    async def settle(self, message: Message) -> None:
        """Acknowledge a message."""
        self._live.pop(message.reply, None)
        self._done[Delivery.of(message).seq] = None
        if len(self._done) > _REMEMBERED:
            del self._done[next(iter(self._done))]
        await self._say(message.reply, ACK)
        self.wake()

    async def give_back(self, message: Message, delay: float) -> None:
        """Give a message back, to be delivered anew after `delay` seconds."""
        self._live.pop(message.reply, None)
        await self._say(message.reply, NAK + f' {{"delay": {int(delay * 1e9)}}}'.encode())
        self.wake()

    def aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside what runs in order."""
        task = asyncio.create_task(work)
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)

    async def _say(self, reply: str, verdict: bytes) -> None:
        """An ack that does not get through means a redelivery, which the ids make harmless."""
        try:
            if not self.bus.post(reply, verdict, lazy=verdict is ACK):
                await self.bus.publish(reply, verdict)
        except Rejection as rejection:
            log.warning("ack lost", consumer=self.consumer.name, why=str(rejection))

    async def _tick(self) -> None:
        """Tell the journal that what is held or runs is still in hands; see to who is apart."""
        knocked = swept = time.monotonic()
        while True:
            await asyncio.sleep(journal.ACK_WAIT / 4)
            now = time.monotonic()
            try:
                if self.holds():
                    for reply in list(self._live):
                        await self._say(reply, PROGRESS)
                    if now - swept > _SWEEP:
                        swept = now
                        await self.tenants.sweep()
                elif now - knocked > _KNOCK and not self._leaving and self.tenants.apart():
                    knocked = now
                    await journal.knock(self.bus, self.service.name, self.partition)
            except (Rejection, JetStreamError) as error:
                log.warning("lane not seen to", consumer=self.consumer.name, why=str(error))
