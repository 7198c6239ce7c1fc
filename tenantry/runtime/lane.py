"""One lane of a service: one partition of the journal, read by one replica at a time.

The messages of one tenant run one after another in the journal's order; those of different
tenants side by side. Which replica reads a lane follows from who is alive (`Members`), that only
one does is the pin's doing. A message that fails sets its tenant apart (`Behind`): the lane passes
its later ones over, and nobody else waits. See docs/decisions/0009-a-tenant-apart.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from tenantry import streams, subjects, tasks
from tenantry.bus import Bus, Message, Pull
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.context.turn import Turn
from tenantry.errors import JetStreamError, Rejection, UnknownAction
from tenantry.messages import Cursor, Replay
from tenantry.rows import Rows
from tenantry.runtime import journal
from tenantry.runtime.attempts import Attempts, Outcome
from tenantry.runtime.behind import Apart, Behind
from tenantry.runtime.letters import Letters
from tenantry.runtime.replaying import is_due
from tenantry.service.handler import Handler
from tenantry.service.service import Service
from tenantry.wire import headers, trace

ACK, NAK, PROGRESS = b"+ACK", b"-NAK", b"+WPI"
_SLOTS = 16
_SETTLE = 0.2
_AGAIN = 0.5
_UNORDERED_WAITS = 2.0
_KNOCK = 2.0
_SWEEP = 5.0
_REMEMBERED = 2048

log = structlog.get_logger("tenantry.lane")


@dataclass(slots=True)
class _Tenant(Apart):
    """What one tenant has in this lane."""

    running: int = 0
    """The sequence of what is being handled, or 0."""
    task: asyncio.Task[None] | None = None
    behind: Behind | None = None


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
        self.bus = bus
        self.service = service
        self.handlers: Mapping[str, Handler] = service.durable
        self.attempts = attempts
        self.cursors = cursors
        self.replays = replays
        self.letters = Letters(bus, service.name)
        self.partition = partition
        self._consumer = journal.lane_name(service.name, partition)
        self._slots = min(_SLOTS, service.concurrency)
        self._tell_lost = lost
        self._tenants: dict[str, _Tenant] = {}
        self._alone: set[asyncio.Task[None]] = set()
        self._live: dict[str, Message] = {}
        self._done: dict[int, None] = {}
        """The latest sequences that were settled: their acknowledgement may get lost."""
        self._pull: Pull | None = None
        self._leaving = False
        self._settled = asyncio.Event()
        self._settled_pin = ""
        self._settling: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None

    # --- taking and leaving --------------------------------------------------------------------

    @property
    def reading(self) -> bool:
        """Whether this replica reads the lane now."""
        return self._pull is not None

    async def take(self) -> None:
        """Begin to read."""
        if self._pull is not None:
            return
        pull = Pull(
            self.bus,
            streams.JOURNAL,
            self._consumer,
            receive=self._receive,
            room=lambda: 0 if self._leaving else self._slots - len(self._live),
            lost=self._on_lost,
            group=journal.GROUP,
        )
        await pull.start()
        self._pull = pull
        self._ticker = asyncio.create_task(self._tick())

    async def leave(self, deadline: float) -> None:
        """Stop to read: finish what runs until `deadline` (loop time), give back the rest.

        The pin is kept, by pulls that take nothing, as long as something runs here; then it is
        given up, so that the next replica need not wait for it to time out.
        """
        if self._pull is None:
            return
        self._leaving = True
        self._settled.set()
        self._pull.wake()
        await self._finish(deadline)
        await tasks.end(self._settling)
        if self._live:
            await self._pull.quiet()
        before = await self._pinned()
        await self._pull.stop()
        await tasks.end(self._ticker)
        if self.bus.connected:  # else they come again by themselves
            for reply in self._live:
                await self._say(reply, NAK)
        self._live.clear()
        self._tenants.clear()
        await self._let_go(self._pull, before)
        self._pull, self._leaving, self._settled_pin = None, False, ""
        self._settled.clear()

    async def _finish(self, deadline: float) -> None:
        """Wait for what runs, and cut off what does not end in time."""
        apart = [t.behind for t in self._tenants.values() if t.behind is not None]
        running = [t.task for t in self._tenants.values() if t.task is not None]
        running += [*self._alone, *(each.leave() for each in apart)]
        if running:
            loop = asyncio.get_running_loop()
            _, late = await asyncio.wait(running, timeout=max(0.0, deadline - loop.time()))
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=2.0)

    async def _let_go(self, pull: Pull, before: str) -> None:
        """Give up the pin, whether we knew of it or not.

        Our last pulls stand in the server's queue until they expire, and one of them may get the
        pin though nobody listens there any more. Asking for the pin also clears them out.
        """
        pinned = await self._pinned()
        if pinned and (pinned == pull.pin or pinned != before):
            with contextlib.suppress(Rejection, JetStreamError):
                await js.api(
                    self.bus,
                    f"CONSUMER.UNPIN.{streams.JOURNAL}.{self._consumer}",
                    {"group": journal.GROUP},
                    timeout=1.0,
                )

    async def _pinned(self) -> str:
        """The pin that the server has given to some reader of this lane, if any."""
        with contextlib.suppress(Rejection, JetStreamError):
            groups = (await self.info(timeout=1.0)).get("priority_groups") or [{}]
            return str(groups[0].get("pinned_client_id", ""))
        return ""

    async def info(self, *, timeout: float = 5.0) -> dict[str, Any]:
        """What the server says of the consumer."""
        path = f"CONSUMER.INFO.{streams.JOURNAL}.{self._consumer}"
        return await js.api(self.bus, path, timeout=timeout)

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
        return self.holds() and self._settled.is_set() and not self._leaving

    def turn(self, seq: int, *, ordered: bool = True, row: Cursor, **more: Any) -> Turn:
        """A turn that counts as long as the lane is ours without a break."""
        pull = self._pull
        pin = pull.pin if pull is not None else ""

        def held() -> bool:
            return self._pull is pull and pull is not None and pull.pin == pin and self.holds()

        more.setdefault("generation", row.generation)
        return Turn(held, seq=seq, epoch=row.epoch, ordered=ordered, **more)

    # --- what comes ----------------------------------------------------------------------------

    def _receive(self, message: Message) -> None:
        seq = Delivery.of(message).seq
        _, _, name, action = message.subject.split(".", 3)
        pull = self._pull
        if pull is not None and pull.pin != self._settled_pin:
            self._settle_in(pull.pin)
        only = message.headers.get(headers.ONLY) if message.headers else None
        if name.startswith("_") or seq in self._done or only not in (None, self.service.name):
            self._settle_now(message, seq)
            return
        handler = self.handlers.get(action)
        if handler is not None and not handler.ordered:
            self._live[message.reply] = message
            task = asyncio.create_task(self._serve_alone(name, seq, message, handler))
            self._alone.add(task)
            task.add_done_callback(self._alone.discard)
            return
        tenant = self._tenants.setdefault(name, _Tenant())
        if seq == tenant.running:
            return  # NATS has lost its memory, or patience; what we say at the end still counts
        if former := tenant.held.get(seq):
            self._live.pop(former.reply, None)
        self._live[message.reply] = message
        tenant.held[seq] = message
        if tenant.task is None:
            tenant.task = asyncio.create_task(self._serve(name, tenant))

    def _settle_in(self, pin: str) -> None:
        """A term begins: what came in an earlier one may be in other hands, so it is let go."""
        self._settled_pin = pin
        self._settled.clear()
        for tenant in self._tenants.values():
            for message in tenant.held.values():
                self._live.pop(message.reply, None)
            tenant.held.clear()
        if self._settling is not None:
            self._settling.cancel()
        self._settling = asyncio.create_task(self._settle())

    async def _settle(self) -> None:
        """Let what was given back arrive, and learn what the former reader has written.

        nats-server turns its queue of redeliveries round while no reader takes from it, so that
        the first ones may come last; what is held is put in order again.
        """
        await asyncio.sleep(_SETTLE)
        while True:
            try:
                await self.cursors.sync()
                await self.replays.sync()
                break
            except (Rejection, JetStreamError, TimeoutError) as error:
                log.warning("lane waits", consumer=self._consumer, why=str(error))
                await asyncio.sleep(_AGAIN)
        self._settled.set()
        for name in self._apart():
            self.look(name)

    def _apart(self) -> list[str]:
        """The tenants of this partition that are to be read apart."""
        names = {*self.cursors.tenants(), *self.replays.tenants()}
        return [n for n in names if subjects.partition(n) == self.partition and self._wants(n)]

    def _wants(self, name: str) -> bool:
        return self.cursors.of(name).behind or is_due(self.replays.of(name))

    def look(self, name: str) -> None:
        """Read a tenant apart from the rest where a row says so."""
        if not self.ready() or not self._wants(name):
            return
        tenant = self._tenants.setdefault(name, _Tenant())
        if tenant.behind is None:
            tenant.behind = Behind(self, name, tenant, lambda: self._caught_up(name, tenant))
        tenant.behind.wake()

    def _caught_up(self, name: str, tenant: _Tenant) -> None:
        tenant.behind = None
        self._forget_idle(name, tenant)

    # --- one message ---------------------------------------------------------------------------

    async def _serve(self, name: str, tenant: _Tenant) -> None:
        """Run what is held of one tenant, in order, until nothing is."""
        try:
            while tenant.held and not self._leaving:
                await self._settled.wait()
                async with tenant.lock:
                    if self._leaving or not tenant.held:
                        continue
                    seq = min(tenant.held)
                    message = tenant.held.pop(seq)
                    tenant.running = seq
                    try:
                        await self._take(name, tenant, seq, message)
                    finally:
                        tenant.running = 0
        finally:
            tenant.task = None
            self._forget_idle(name, tenant)
            if self._pull is not None:
                self._pull.wake()

    def _forget_idle(self, name: str, tenant: _Tenant) -> None:
        idle = tenant.task is None and not tenant.held and tenant.behind is None
        if idle and self._tenants.get(name) is tenant:
            del self._tenants[name]

    async def _take(self, name: str, tenant: _Tenant, seq: int, message: Message) -> None:
        """Handle one message and settle it; one that fails sets its tenant apart."""
        row = self.cursors.of(name)
        if not self.holds():
            self._live.pop(message.reply, None)  # it comes again, to whoever reads the lane then
            return
        if row.behind or seq < row.next:
            await self._pass_over(name, tenant, seq, message)
            return
        handler = self.handlers.get(message.subject.split(".", 3)[3])
        if handler is None:
            await self._set_apart(name, tenant, seq, message, self.unknown(message.subject))
            return
        delivery = Delivery.of(message)
        result = await self.attempts.run(handler, message, delivery, self.turn(seq, row=row))
        if result.outcome is Outcome.LOST:
            self._live.pop(message.reply, None)
        elif result.why is None:
            await self._settle_message(message, seq)
        else:
            gone = result.outcome is Outcome.HOPELESS or handler.retry.tries == 1
            if not gone or not await self._lay_down(message, delivery, result.why):
                await self._set_apart(name, tenant, seq, message, result.why)
            else:
                await self._settle_message(message, seq)

    async def _pass_over(self, name: str, tenant: _Tenant, seq: int, message: Message) -> None:
        """What is read apart, or has been: the journal keeps it."""
        if tenant.behind is not None and not await tenant.behind.passed(seq):
            self._live.pop(message.reply, None)
            return
        tenant.passed = max(tenant.passed, seq)
        await self._settle_message(message, seq)
        self.look(name)

    async def _set_apart(
        self, name: str, tenant: _Tenant, seq: int, message: Message, why: Rejection
    ) -> None:
        """Write down that this tenant is read apart from here on; only then let the lane go on."""
        handler = self.handlers.get(message.subject.split(".", 3)[3])
        pause = handler.retry.pause(1) if handler is not None else _AGAIN
        now = time.time()

        def apart(row: Cursor) -> Cursor:
            if row.behind:
                return row
            return msgspec.structs.replace(
                row,
                next=seq,
                behind=True,
                failed=0 if handler is None else 1,
                first_failed=now,
                retry_at=now + pause,
                code=why.code,
            )

        while self.holds():
            try:
                await self.cursors.change(name, apart)
            except (Rejection, JetStreamError) as error:
                log.warning("tenant not set apart yet", tenant=name, seq=seq, why=str(error))
                await asyncio.sleep(_AGAIN)
                continue
            log.warning(
                "will retry",
                **about(message.subject, message.headers, seq),
                attempt=1,
                after=round(pause, 2),
                code=why.code,
            )
            tenant.passed = max(tenant.passed, seq)
            await self._settle_message(message, seq)
            self.look(name)
            return
        self._live.pop(message.reply, None)

    async def _serve_alone(self, name: str, seq: int, message: Message, handler: Handler) -> None:
        """Handle a message that no order binds: NATS itself delivers it again after a pause."""
        await self._settled.wait()
        delivery = Delivery.of(message)
        row = self.cursors.of(name)
        replay = self.replays.of(name)
        if self._leaving or not self.holds():
            self._live.pop(message.reply, None)
            return
        if replay is not None and replay.generation is None and is_due(replay):
            await self._give_back(message, _UNORDERED_WAITS)
            return
        turn = self.turn(seq, ordered=False, row=row)
        outcome, why = await self.attempts.run(handler, message, delivery, turn)
        if outcome is Outcome.LOST:
            self._live.pop(message.reply, None)
        elif why is None:
            await self._settle_message(message, seq)
        elif outcome is Outcome.HOPELESS or delivery.attempt >= handler.retry.tries:
            if await self._lay_down(message, delivery, why):
                await self._settle_message(message, seq)
            else:
                await self._give_back(message, handler.retry.most)
        else:
            pause = handler.retry.pause(delivery.attempt)
            log.warning(
                "will retry",
                **about(message.subject, message.headers, seq),
                attempt=delivery.attempt,
                after=round(pause, 2),
                code=why.code,
            )
            await self._give_back(message, pause)

    async def _lay_down(self, message: Message, delivery: Delivery, why: Rejection) -> bool:
        """Make a dead letter of a message; False where that can't be done now."""
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

    async def _settle_message(self, message: Message, seq: int) -> None:
        self._live.pop(message.reply, None)
        self._remember(seq)
        await self._say(message.reply, ACK)
        if self._pull is not None:
            self._pull.wake()

    def _settle_now(self, message: Message, seq: int) -> None:
        task = asyncio.create_task(self._settle_message(message, seq))
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)

    def _remember(self, seq: int) -> None:
        self._done[seq] = None
        if len(self._done) > _REMEMBERED:
            del self._done[next(iter(self._done))]

    async def _give_back(self, message: Message, delay: float) -> None:
        """Give a message back, to be delivered anew after `delay` seconds."""
        self._live.pop(message.reply, None)
        await self._say(message.reply, NAK + f' {{"delay": {int(delay * 1e9)}}}'.encode())
        if self._pull is not None:
            self._pull.wake()

    async def _say(self, reply: str, verdict: bytes) -> None:
        """An ack that does not get through means a redelivery, which the ids make harmless."""
        try:
            await self.bus.publish(reply, verdict)
        except Rejection as rejection:
            log.warning("ack lost", consumer=self._consumer, why=str(rejection))

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
                        await self._sweep()
                elif now - knocked > _KNOCK and not self._leaving and self._apart():
                    knocked = now
                    await journal.knock(self.bus, self.service.name, self.partition)
            except (Rejection, JetStreamError) as error:
                log.warning("lane not seen to", consumer=self._consumer, why=str(error))

    async def _sweep(self) -> None:
        """Look after tenants apart, and forget the rows that the lane has come past."""
        rows = [n for n in self.cursors.tenants() if subjects.partition(n) == self.partition]
        for name in rows:
            self.look(name)
        stale = [n for n in rows if (row := self.cursors.of(n)).next and not row.behind]
        if not stale:
            return
        floor = (await self.info())["ack_floor"]["stream_seq"]
        for name in stale:
            await self.cursors.change(name, lambda row: _forgotten(row, floor))


def _forgotten(row: Cursor, floor: int) -> Cursor:
    """A row without its place, where the lane has come past it."""
    if row.behind or row.next > floor + 1:
        return row
    return Cursor(epoch=row.epoch, generation=row.generation, former=row.former)


def about(subject: str, fields: Mapping[str, str] | None, seq: int) -> dict[str, Any]:
    """What a log line says of a stored message."""
    _, _, tenant, action = subject.split(".", 3)
    hop = trace.extract(fields)
    found = {"action": action, "tenant": tenant, "seq": seq}
    return found if hop is None else {**found, "trace_id": hop.trace_id}
