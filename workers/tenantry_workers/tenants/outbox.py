"""A durable consumer that passes on what it reads, and forgets nothing before that."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog

from tenantry import tasks
from tenantry.bus import Bus, Message, Pull
from tenantry.bus import jetstream as js
from tenantry.errors import JetStreamError, Rejection

_AGAIN = 1.0
_MEND = 5.0
_REDELIVERY = 1.0
"""How much later than its `ack_wait` a message may come again."""

_LINGER = 0.05
"""What falls due together arrives within so many seconds."""

log = structlog.get_logger("tenantry.tenants")

Publish = Callable[[Message], Awaitable[None]]
"""Passes one message on. Raises :class:`NotYet`, or what NATS says, to get it again."""

Rank = Callable[[Message], tuple[str, tuple[int, ...]]]
"""Whose a message is, and its place among those of the same owner."""


class NotYet(Exception):
    """The message has to wait, seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__(delay)
        self.delay = delay


class DurableOutbox:
    """Acknowledges a message when `publish` has passed it on; any number of replicas may run.

    With a `rank`, what arrives together is sorted by it: one owner's messages go one after
    another, those of several side by side, and behind one that has to wait its owner's others wait.
    After a lost connection, what was under way then comes again only after `ack_wait`, but new
    messages at once: so long all are put together, as many as there is room for.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        config: dict[str, Any],
        publish: Publish,
        *,
        rank: Rank | None = None,
        room: int = 16,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._config = config
        self._publish = publish
        self._rank = rank
        self._room = room
        self._held = 0
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._lost = asyncio.Event()
        self._wait = config["ack_wait"] / 1e9
        self._calm = 0.0
        """Until then something older may come, loop time."""
        self._forget: Callable[[], None] = lambda: None
        self._pull: Pull | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Make the consumer and begin."""
        await self._ensure()
        groups: Sequence[str] = self._config.get("priority_groups", ("",))
        self._pull = Pull(
            self._bus,
            self._stream,
            self._config["name"],
            receive=self._receive,
            room=lambda: self._room - self._held,
            lost=self._lost.set,
            group=groups[0],
        )
        await self._pull.start()
        if self._rank is not None:
            self._forget = self._bus.on_reconnect(self._unsettle)
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._mend())]

    async def stop(self) -> None:
        """Stop; what is not acknowledged comes again."""
        self._forget()
        if self._pull is not None:
            await self._pull.stop()
        await tasks.end(*self._tasks)

    async def _ensure(self) -> None:
        await js.ensure_consumer(self._bus, self._stream, self._config)

    async def _mend(self) -> None:
        """Make the consumer again where it is gone; where NATS was only away nothing changes."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            try:
                await self._ensure()
            except (Rejection, JetStreamError) as error:
                log.warning("consumer not at hand", name=self._config["name"], why=str(error))
            await asyncio.sleep(_MEND)

    def _receive(self, message: Message) -> None:
        self._held += 1
        self._queue.put_nowait(message)

    def _unsettle(self) -> None:
        self._calm = asyncio.get_running_loop().time() + self._wait + _REDELIVERY

    async def _run(self) -> None:
        while True:
            batch = await self._gather()
            lanes: dict[str, list[Message]] = {}
            if self._rank is not None:
                batch.sort(key=self._rank)
            for message in batch:
                owner = self._rank(message)[0] if self._rank is not None else ""
                lanes.setdefault(owner, []).append(message)
            await asyncio.gather(*(self._pass_on(lane) for lane in lanes.values()))

    async def _gather(self) -> list[Message]:
        """What is there, and with a rank also what arrives right behind it."""
        batch = [await self._queue.get()]
        if self._rank is None:
            return batch
        loop = asyncio.get_running_loop()
        while len(batch) < self._room:
            unsettled = self._calm - loop.time()
            try:
                async with asyncio.timeout(max(_LINGER, min(unsettled, self._wait / 2))):
                    batch.append(await self._queue.get())
            except TimeoutError:
                if unsettled <= 0:
                    break
                await self._keep(batch)
        return batch

    async def _keep(self, batch: list[Message]) -> None:
        """Have nobody else get these while more is awaited."""
        with contextlib.suppress(Rejection):
            for message in batch:
                await self._bus.publish(message.reply, b"+WPI")

    async def _pass_on(self, lane: list[Message]) -> None:
        delay = 0.0
        for message in lane:
            if not delay:
                delay = await self._try(message)
            verdict = b"+ACK"
            if delay:
                verdict = b"-NAK " + msgspec.json.encode({"delay": math.ceil(delay * 1e9)})
            with contextlib.suppress(Rejection):
                await self._bus.publish(message.reply, verdict)
            self._held -= 1
            if self._pull is not None:
                self._pull.wake()

    async def _try(self, message: Message) -> float:
        """Pass one message on; how long it has to wait where that can't be, seconds."""
        try:
            await self._publish(message)
        except NotYet as later:
            return later.delay
        except (Rejection, JetStreamError) as error:
            log.warning("not passed on yet", subject=message.subject, why=str(error))
            return _AGAIN
        except Exception as error:  # an outbox that ends would never be missed
            log.error("not passed on", subject=message.subject, exc_info=error)
            return _AGAIN
        return 0.0
