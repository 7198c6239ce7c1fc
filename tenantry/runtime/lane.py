"""One lane of a service: some partitions of the journal, read by one replica at a time.

The messages of one tenant run one after another in the journal's order; those of different
tenants side by side. Which replica reads a lane follows from who is alive (`Members`), that only
one does is the pin's doing. A message that fails goes back to the journal with a delay, and its
tenant's later ones behind it, so that nobody else waits and nothing is overtaken.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog

from tenantry import streams, tasks
from tenantry.bus import Bus, Message, Pull
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.errors import JetStreamError, Rejection
from tenantry.runtime import journal
from tenantry.runtime.dispatch import Dispatcher, Permanent
from tenantry.service.handler import Handler
from tenantry.wire import trace

ACK, NAK, PROGRESS, TERM = b"+ACK", b"-NAK", b"+WPI", b"+TERM"
_FIRST_RETRY = 0.2
_LAST_RETRY = 30.0
_ROUND = 500
_PATIENCE = 30.0
_SETTLE = 0.2

log = structlog.get_logger("tenantry.lane")


class _Owed(NamedTuple):
    """A message that was given back: it should come again, and is waited for until then.

    Its body is left to the journal: what waits must not grow our memory.
    """

    reply: str
    until: float


@dataclass(slots=True)
class _Tenant:
    """What one tenant has in this lane: held here, and given back for later."""

    held: dict[int, Message] = field(default_factory=dict)
    """By sequence; of a message that was delivered twice the later delivery."""
    running: int = 0
    """The sequence of what is being handled, or 0."""
    owed: dict[int, _Owed] = field(default_factory=dict)
    """What was given back, by sequence: nothing above the lowest of them may run before it. One
    that stays away has been erased or has outlived its retention."""
    retry_at: float = 0.0
    failed: int = 0
    """How often its first message has failed in a row; its deliveries count the waiting too."""
    task: asyncio.Task[None] | None = None

    def is_owed(self) -> bool:
        """Whether anything that was given back is still to come."""
        now = time.monotonic()
        for gone in [seq for seq, owed in self.owed.items() if owed.until < now]:
            del self.owed[gone]
        return bool(self.owed)

    def must_wait(self, seq: int) -> bool:
        """Whether an earlier message has been given back and is still to come."""
        return self.is_owed() and min(self.owed) < seq


class Lane:
    """Reads one lane while it is this replica's turn.

    `lost` is called when the consumer seems to be gone.
    """

    def __init__(
        self,
        bus: Bus,
        consumer: str,
        dispatcher: Dispatcher,
        handlers: Mapping[str, Handler],
        *,
        slots: int,
        lost: Callable[[], None],
    ) -> None:
        self.lost = False
        """Whether somebody should look if the consumer is still there."""
        self._bus = bus
        self._consumer = consumer
        self._dispatcher = dispatcher
        self._handlers = handlers
        self._slots = slots
        self._tell_lost = lost
        self._tenants: dict[str, _Tenant] = {}
        self._live: dict[str, Message] = {}
        self._pull: Pull | None = None
        self._leaving = False
        self._settled = asyncio.Event()
        self._settled_pin = ""
        self._ticker: asyncio.Task[None] | None = None

    @property
    def reading(self) -> bool:
        """Whether this replica reads the lane now."""
        return self._pull is not None

    async def take(self) -> None:
        """Begin to read."""
        if self._pull is not None:
            return
        pull = Pull(
            self._bus,
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
        running = [t.task for t in self._tenants.values() if t.task is not None]
        if running:
            loop = asyncio.get_running_loop()
            _, late = await asyncio.wait(running, timeout=max(0.0, deadline - loop.time()))
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        if self._live or any(tenant.owed for tenant in self._tenants.values()):
            await self._pull.quiet()
        before = await self._pinned()
        await self._pull.stop()
        await tasks.end(self._ticker)
        owed = [each.reply for t in self._tenants.values() for each in t.owed.values()]
        if self._bus.connected:  # else they come again by themselves
            for reply in (*self._live, *owed):
                await self._say(reply, NAK)  # without delay: the heir gets them before later ones
        self._live.clear()
        self._tenants.clear()
        await self._let_go(self._pull, before)
        self._pull, self._leaving, self._settled_pin = None, False, ""

    async def _let_go(self, pull: Pull, before: str) -> None:
        """Give up the pin, whether we knew of it or not.

        Our last pulls stand in the server's queue until they expire, and one of them may get the
        pin though nobody listens there any more. Asking for the pin also clears them out.
        """
        pinned = await self._pinned()
        if pinned and (pinned == pull.pin or pinned != before):
            with contextlib.suppress(Rejection, JetStreamError):
                await js.api(
                    self._bus,
                    f"CONSUMER.UNPIN.{streams.JOURNAL}.{self._consumer}",
                    {"group": journal.GROUP},
                    timeout=1.0,
                )

    async def _pinned(self) -> str:
        """The pin that the server has given to some reader of this lane, if any."""
        path = f"CONSUMER.INFO.{streams.JOURNAL}.{self._consumer}"
        with contextlib.suppress(Rejection, JetStreamError):
            groups = (await js.api(self._bus, path, timeout=1.0)).get("priority_groups") or [{}]
            return str(groups[0].get("pinned_client_id", ""))
        return ""

    # --- inside --------------------------------------------------------------------------------

    def _on_lost(self) -> None:
        self.lost = True
        self._tell_lost()

    def _receive(self, message: Message) -> None:
        seq = Delivery.of(message).seq
        name = message.subject.split(".", 3)[2]
        tenant = self._tenants.setdefault(name, _Tenant())
        if seq == tenant.running:
            return  # NATS has lost its memory, or patience; what we say at the end still counts
        if former := tenant.held.get(seq):
            self._live.pop(former.reply, None)
        self._live[message.reply] = message
        tenant.owed.pop(seq, None)
        tenant.held[seq] = message
        if self._pull is not None and self._pull.pin != self._settled_pin:
            self._settle_in(self._pull.pin)
        if tenant.task is None:
            tenant.task = asyncio.create_task(self._serve(name, tenant))

    def _settle_in(self, pin: str) -> None:
        """After a change of reader, first let what was given back arrive.

        nats-server turns its queue of redeliveries round while no reader takes from it, so that
        the first ones may come last; there they are put in order again.
        """
        self._settled_pin = pin
        self._settled.clear()
        asyncio.get_running_loop().call_later(_SETTLE, self._settled.set)

    async def _serve(self, name: str, tenant: _Tenant) -> None:
        """Run what is held of one tenant, in order, until nothing is or something has failed."""
        try:
            while tenant.held and not self._leaving:
                await self._settled.wait()
                if self._leaving:
                    break
                seq = min(tenant.held)
                message = tenant.held.pop(seq)
                if tenant.must_wait(seq):
                    wait = max(tenant.retry_at - time.monotonic(), 0.05)
                    # The more of them, the slower they go round while nothing can come of it.
                    wait = min(wait + len(tenant.owed) / _ROUND, _LAST_RETRY)
                    await self._give_back(tenant, seq, message, wait)
                    continue
                tenant.running = seq
                try:
                    # A task of its own, and so a context of its own: nothing stays for the next.
                    delay = await asyncio.create_task(self._handle(message, tenant.failed))
                finally:
                    tenant.running = 0
                tenant.failed = 0 if delay is None else tenant.failed + 1
                if delay is not None:
                    tenant.retry_at = time.monotonic() + delay
                    await self._give_back(tenant, seq, message, delay)
        finally:
            tenant.task = None
            self._forget_idle(name, tenant)
            if self._pull is not None:
                self._pull.wake()

    def _forget_idle(self, name: str, tenant: _Tenant) -> None:
        idle = tenant.task is None and not tenant.held and not tenant.is_owed()
        if idle and self._tenants.get(name) is tenant:
            del self._tenants[name]

    async def _handle(self, message: Message, failed: int) -> float | None:
        """Handle one message and settle it; returns the seconds until a retry, if one is due.

        `failed` is how often it has failed before.
        """
        delivery = Delivery.of(message)
        handler = self._handlers.get(message.subject.split(".", 3)[3])
        if handler is None:  # a newer version asked for it: it waits for that one
            await self._settle(message, _nak(_LAST_RETRY))
            return None
        try:
            await self._dispatcher.stored(handler, message, delivery)
        except Permanent as permanent:
            log.error(
                "message refused for good",
                **_about(message, delivery),
                code=permanent.rejection.code,
                why=str(permanent),
                **permanent.rejection.extensions,
            )
            await self._settle(message, TERM + f" {permanent.rejection.code}".encode())
        except Rejection as rejection:
            delay: float = min(_LAST_RETRY, _FIRST_RETRY * 2 ** min(failed, 16))
            delay *= random.uniform(0.8, 1.2)  # noqa: S311  (jitter)
            log.warning(
                "will retry",
                **_about(message, delivery),
                attempt=delivery.attempt,
                after=round(delay, 2),
                code=rejection.code,
            )
            return delay
        else:
            await self._settle(message, ACK)
        return None

    async def _give_back(self, tenant: _Tenant, seq: int, message: Message, delay: float) -> None:
        tenant.owed[seq] = _Owed(message.reply, time.monotonic() + delay + _PATIENCE)
        await self._settle(message, _nak(delay))

    async def _settle(self, message: Message, verdict: bytes) -> None:
        self._live.pop(message.reply, None)
        await self._say(message.reply, verdict)
        if self._pull is not None:
            self._pull.wake()

    async def _say(self, reply: str, verdict: bytes) -> None:
        """An ack that does not get through means a redelivery, which the ids make harmless."""
        try:
            await self._bus.publish(reply, verdict)
        except Rejection as rejection:
            log.warning("ack lost", consumer=self._consumer, why=str(rejection))

    async def _tick(self) -> None:
        """Tell the journal that what is held or runs is still in hands."""
        while True:
            await asyncio.sleep(journal.ACK_WAIT / 4)
            for name, tenant in list(self._tenants.items()):
                self._forget_idle(name, tenant)
            if self._bus.connected:
                for reply in list(self._live):
                    await self._say(reply, PROGRESS)


def _about(message: Message, delivery: Delivery) -> dict[str, Any]:
    """What a log line says of a message."""
    _, _, tenant, action = message.subject.split(".", 3)
    hop = trace.extract(message.headers)
    about = {"action": action, "tenant": tenant, "seq": delivery.seq}
    return about if hop is None else {**about, "trace_id": hop.trace_id}


def _nak(delay: float) -> bytes:
    """Give a message back, to be delivered anew after `delay` seconds."""
    return NAK + f' {{"delay": {int(delay * 1e9)}}}'.encode()
