"""Reads a stream in order, without gaps and without repeats, for as long as it is wanted.

A reader has an ephemeral pull consumer without acknowledgements. It creates the consumer again,
after the last message received, whenever messages were lost or the consumer is gone.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from tenantry import tasks
from tenantry.bus.connection import Bus, Message, Subscription
from tenantry.bus.jetstream import STREAM_NOT_FOUND, Delivery, api
from tenantry.errors import JetStreamError, NotAllowed, Rejection

_EXPIRES = 30.0
"""Seconds that the server keeps a pull open."""
_BEAT = 5.0
"""Seconds between the server's heartbeats while a pull is open and no message comes."""
_MISSED = 2.5
"""Beats without any sign of the server after which the consumer counts as lost."""
_INACTIVE = 30.0
"""Seconds without a pull after which the server deletes the consumer."""
_CREATION = 10.0
"""Seconds that the creation of a consumer may take."""
_LOOK = 1.0
"""Seconds between looks at the heartbeats and at the connection.

A connection that was replaced lives for 2 s more, so a look within that time loses nothing.
"""
_PAUSE = 0.1
"""Seconds before the next creation, if the last one failed or brought no message."""
_LONGEST_PAUSE = 1.0

_UNDER_WAY = 4 * 1024 * 1024
"""Bytes of bodies that one reader asks for at a time, by the average size of those received."""
_LEAST = 8
"""Messages that one pull asks for at least, however large they are."""
_FIRST_SIZE = 64 * 1024.0
"""The average size before anything was received: the first pull asks for 32 messages."""
_WEIGHT = 1 / 16
"""The share of the latest body in the average size."""

_NANOSECONDS = 1_000_000_000

log = structlog.get_logger("tenantry.bus")


class Reader:
    """Calls `receive` with each message of `stream` on `subject`, in order, from `first` on.

    `room` returns how many more messages may come; the reader never asks for more than that. It
    asks for `batch` messages at a time, fewer if they are large, and never for less than half of
    that: let the largest `room` be at least `batch`. Call :meth:`more` when there is room again.

    `empty` is called after each creation of the consumer that finds no message left to read, and
    `failed` after each creation that fails. With `start_time` (seconds since the epoch, to the
    microsecond) reading starts with the first message stored at that time or later, and not at
    `first`. With `headers_only` messages have no bodies.

    None of the callbacks may raise.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        subject: str,
        first: int,
        *,
        receive: Callable[[Message, Delivery], None],
        room: Callable[[], int],
        batch: int = 256,
        empty: Callable[[], None] | None = None,
        failed: Callable[[], None] | None = None,
        headers_only: bool = False,
        start_time: float | None = None,
    ) -> None:
        self.next = max(first, 1)
        """The sequence after the last message received."""
        self.recreated = 0
        """How often the consumer was created again."""
        self.broken = ""
        """Why the consumer had to be created again, or could not be, the last time."""
        self.failure: JetStreamError | NotAllowed | None = None
        """Set while the stream does not exist, or the credentials do not allow to read it.

        The reader tries again nevertheless.
        """
        self._bus = bus
        self._stream = stream
        self._subject = subject
        self._receive = receive
        self._room = room
        self._batch = batch
        self._empty = empty or _nothing
        self._failed = failed or _nothing
        self._headers_only = headers_only
        self._start_time = start_time
        self._token = secrets.token_hex(8)
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] = _nothing
        self._stopped = False
        self._created = False
        """True if there was a consumer before."""
        self._size = _FIRST_SIZE
        # Of the consumer of now:
        self._name = ""
        self._inbox = ""
        """The bus's inbox when the consumer was created: the replies of all pulls are below it."""
        self._reply = ""
        self._open = False
        """True if messages of this consumer are taken."""
        self._ended = asyncio.Event()
        self._number = 0
        """The consumer's own number of the last message received."""
        self._asked = 0
        """Messages that were asked for and have not come."""
        self._low = 0
        """How few of them there are when it is time to ask for more."""
        self._pulls = 0
        self._statuses = 0

    async def start(self) -> None:
        """Begin to read. Returns at once; the consumer is created in a task, as often as needed."""
        self._forget = self._bus.on_reconnect(lambda: self.restart("the connection was lost"))
        self._task = asyncio.create_task(self._run(), name=f"reader {self._stream}")

    async def stop(self) -> None:
        """Stop reading. `receive` is not called again from the moment of this call on."""
        self._stopped, self._open = True, False
        self._forget()
        try:
            await tasks.end(self._task)
        finally:
            self._delete()
            subscription, self._subscription = self._subscription, None
            if subscription is not None:
                await subscription.stop()

    def more(self) -> None:
        """Ask for more messages, if there is room for enough of them to be worth a pull.

        A pull costs the server as much as several messages.
        """
        asked = self._asked
        if asked > self._low or not self._open:
            return
        room = self._room() - asked
        if room < max(self._low, 1):
            return
        batch = min(self._batch, max(_LEAST, int(_UNDER_WAY / (2 * self._size + 1))))
        self._low = batch // 2
        if room >= self._low:
            self._pull(min(room, batch))

    def restart(self, why: str) -> None:
        """Create the consumer again, after the last message received, unless that is under way."""
        if self._open:
            self._open = False  # first of all: nothing more of this consumer may be taken
            self.broken = why
            self._ended.set()

    # --- the consumer --------------------------------------------------------------------------

    async def _run(self) -> None:
        """Create one consumer after the other."""
        loop, pause = asyncio.get_running_loop(), _PAUSE
        while True:
            began = loop.time()
            try:
                await self._create()
                await self._watch()
                log.info("reader restarts", stream=self._stream, why=self.broken)
            except Exception as error:  # noqa: BLE001  (a reader that ends would never be missed)
                self._note(error)
            received, self._number = self._number, 0
            if received:
                self._start_time = None
            self._delete()
            if received or loop.time() - began > _LOOK:
                pause = _PAUSE
            if not received:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _create(self) -> None:
        """Create a consumer, and send the first pull."""
        bus = self._bus
        if self._subscription is None:
            subject = f"{bus.inbox}.reader.{self._token}.*"  # moves along when the inbox changes
            self._subscription = await bus.listen(subject, self._take)
        self._name = name = f"reader-{secrets.token_hex(8)}"
        self._inbox = bus.inbox
        self._reply = f"{self._inbox}.reader.{self._token}.{name}"
        path = f"CONSUMER.CREATE.{self._stream}.{name}.{self._subject}"
        ask = {"stream_name": self._stream, "config": self._config(name)}
        info = await api(bus, path, ask, timeout=_CREATION)
        if self._stopped:
            return
        self.recreated += self._created
        self._created, self.failure = True, None
        self._asked = 0
        self._ended.clear()
        self._open = True
        if not info["num_pending"]:
            self._empty()
        self.more()

    def _config(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "filter_subject": self._subject,
            "headers_only": self._headers_only,
            "inactive_threshold": int(_INACTIVE * _NANOSECONDS),
            "mem_storage": True,
            "num_replicas": 1,
        }
        if self._start_time is None:
            return {**config, "deliver_policy": "by_start_sequence", "opt_start_seq": self.next}
        at = dt.datetime.fromtimestamp(self._start_time, dt.UTC).isoformat()
        return {**config, "deliver_policy": "by_start_time", "opt_start_time": at}

    async def _watch(self) -> None:
        """Return when the consumer has to be created again."""
        loop = asyncio.get_running_loop()
        seen, at = (0, 0, 0), loop.time()
        while self._open:
            try:
                async with asyncio.timeout(_LOOK):
                    await self._ended.wait()
            except TimeoutError:
                now = self._number, self._statuses, self._pulls
                if now != seen or not self._asked:
                    seen, at = now, loop.time()
                elif loop.time() - at > _MISSED * _BEAT:
                    self.restart("the server is silent")
                if self._inbox != self._bus.inbox:
                    self.restart("the connection was renewed")

    def _delete(self) -> None:
        """Delete the consumer, without waiting for an answer: else the server does it later."""
        name, self._name = self._name, ""
        if name:
            self._post(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}")

    def _note(self, error: Exception) -> None:
        """Keep why there is no consumer, and log it unless it is what was logged before."""
        self._open = False
        why = str(error) or type(error).__name__
        if why != self.broken:
            log.warning("stream not readable", stream=self._stream, why=why)
        self.broken = why
        lacking = isinstance(error, JetStreamError) and error.err_code == STREAM_NOT_FOUND
        if lacking or isinstance(error, NotAllowed):
            self.failure = error  # type: ignore[assignment]  # it is one of the two
        self._failed()

    # --- messages ------------------------------------------------------------------------------

    def _pull(self, count: int) -> None:
        if self._inbox != self._bus.inbox:
            self.restart("the connection was renewed")
            return
        ask = {
            "batch": count,
            "expires": int(_EXPIRES * _NANOSECONDS),
            "idle_heartbeat": int(_BEAT * _NANOSECONDS),
        }
        path = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        if self._post(path, msgspec.json.encode(ask), self._reply):
            self._asked += count
            self._pulls += 1

    def _post(self, subject: str, payload: bytes = b"", reply: str = "") -> bool:
        """Send this, or return False where there is no connection: the next one begins anew."""
        try:
            return self._bus.post(subject, payload, reply=reply)
        except Rejection as error:
            self.restart(error.message)
            return False

    def _take(self, message: Message) -> None:
        """Take what comes to the inbox: messages with their subject in the stream, or a status.

        This is the hot path. What a former consumer has sent is dropped.
        """
        if not self._open:
            return
        if message.subject == self._reply:
            self._on_status(message.headers or {})
            return
        if self._name not in message.reply:
            return
        delivery = Delivery.of(message)
        if delivery.number != self._number + 1:
            self.restart(f"messages were lost: {delivery.number} came after {self._number}")
            return
        self._number = delivery.number
        self.next = delivery.seq + 1
        self._asked -= 1
        self._size += (len(message.data) - self._size) * _WEIGHT
        self._receive(message, delivery)
        self.more()

    def _on_status(self, headers: dict[str, str]) -> None:
        """Handle a heartbeat, the end of a pull, or the end of the consumer."""
        status, text = headers.get("Status", ""), headers.get("Description", "")
        self._statuses += 1
        if status == "100":
            last = headers.get("Nats-Last-Consumer", "")
            if last.isdigit() and int(last) != self._number:
                self.restart(f"messages were lost: {last} are sent, {self._number} have come")
        elif status == "408" or "MaxBytes" in text or "Batch Completed" in text:
            left = headers.get("Nats-Pending-Messages", "")
            self._asked = max(0, self._asked - (int(left) if left.isdigit() else 0))
            self.more()
        elif status:
            self.restart(f"{status} {text}".strip())


def _nothing() -> None:
    """Stand in for a callback that was not given."""
