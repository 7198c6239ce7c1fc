"""nats-py's client as the bus needs it: made for one connection, thrown away when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from tenantry.bus.message import Message
from tenantry.bus.protocol import Splitter, publication

INBOXES = ("_INBOX.", "_MESH.")
"""What answers come to begins with one of these, and nothing else does."""

_CHOKED = 1 << 22
"""Bytes sent and not yet taken in by the server from which on nothing more is taken in here."""

_LINGER = 0.002
"""How long what is lazy waits for company, seconds: each write costs as much as a message."""

log = structlog.get_logger("tenantry.bus")


class NatsClient(Client):
    """nats-py's client with a quicker way for messages, and without three of its traps (2.16.0).

    Its read loop ends, without a word and for good, at the PONG for a flush that was cancelled or
    timed out meanwhile: the connection stays open and hears nothing any more. It writes a PING
    before what waits to be written: a drain would lose what comes between PONG and UNSUB. And where
    something waits to be written when the connection is lost, it fails while it closes, half way:
    nobody is told, subscriptions and socket stay behind.

    Once connected, what comes is split here as it comes: a message goes straight to the callback of
    its subscription, everything else to nats-py's read loop. What is sent in one turn of the event
    loop is written at once at its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inbox = ""
        """The prefix of what answers come to on this connection, and on no other."""
        self._inline: dict[int, Callable[[Message], None]] = {}
        self._splitter = Splitter(self._deliver, lambda _: None)
        self._feeding = False
        self._to_write = False
        self._lingering: asyncio.TimerHandle | None = None
        self.begun = False
        """Whether a listener has begun a task that will publish in its first step: then all of them
        are written after it, in the same turn of the event loop."""
        self._draining: asyncio.Task[None] | None = None
        self.choked = False
        """Whether the server does not take in what is sent as quickly as it comes."""

    # --- receiving -----------------------------------------------------------------------------

    def hasten(self) -> None:
        """Split what comes from now on before nats-py's read loop has it.

        Call it when connected, before anything is subscribed to.
        """
        reader = getattr(self._transport, "_io_reader", None)
        if isinstance(reader, asyncio.StreamReader):
            self._splitter = Splitter(self._deliver, reader.feed_data)
            reader.feed_data = self._feed  # type: ignore[assignment,method-assign]
            return
        # A WebSocket has its own frames: they are split on their way to nats-py's parser, which
        # would take parts of a subject for something else (see the protocol module).
        parse, lines = self._ps.parse, bytearray()
        self._splitter = Splitter(self._deliver, lines.extend)

        async def split_first(data: bytes = b"") -> None:
            self._feed(data)
            rest = bytes(lines)
            lines.clear()
            await parse(rest)

        self._ps.parse = split_first  # type: ignore[method-assign]

    def _feed(self, data: bytes) -> None:
        """Take what has come; what listeners publish meanwhile is written at the end, at once."""
        self._feeding = True
        try:
            self._splitter.feed(data)
        finally:
            self._feeding = False
            if self._to_write:
                self._write()
            if self.begun:
                self.begun = False
                self._write_soon()

    async def listen(
        self, subject: str, queue: str, callback: Callable[[Message], None]
    ) -> Subscription:
        """Subscribe with a callback that is called as the message comes, and must not raise."""
        self._inline[self._sid + 1] = callback  # it may come before `subscribe` returns
        return await self.subscribe(subject, queue=queue)

    def _deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, block: bytes) -> None:
        subscription = self._subs.get(sid)
        if subscription is None:
            return
        message = Message(
            subject.decode("utf-8", "replace"), reply.decode("utf-8", "replace"), data, block
        )
        if (callback := self._inline.get(sid)) is not None:
            callback(message)
        else:
            _queue(subscription, message)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        self._deliver(sid, subject, reply, data, headers or b"")

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self._inline.pop(sid, None)

    # --- sending -------------------------------------------------------------------------------

    def send(
        self,
        subject: str,
        payload: bytes,
        reply: str,
        headers: Mapping[str, str] | None,
        *,
        lazy: bool = False,
    ) -> None:
        """Publish; raises as :func:`publication` does, and `ConnectionClosedError`.

        What is `lazy` goes with the next message that is not, or after two milliseconds.
        """
        if self._status == Client.CLOSED:
            raise nats.errors.ConnectionClosedError
        data = publication(subject, payload, reply, headers, self._max_payload)
        self._pending.append(data)
        self._pending_data_size += len(data)
        if self._pending_data_size > _CHOKED:
            self._write()  # whoever publishes without a pause would never see that it is too much
        elif lazy:
            if self._lingering is None and not self._to_write:
                self._lingering = asyncio.get_running_loop().call_later(_LINGER, self._write)
        elif self._feeding:
            self._to_write = True
        else:
            self._write_soon()

    def _write_soon(self) -> None:
        if not self._to_write:
            self._to_write = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._to_write = False
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if not self._pending or self._transport is None:
            return
        writer = getattr(self._transport, "_io_writer", None)
        if writer is None:  # a WebSocket: nats-py's own flusher knows how
            with contextlib.suppress(asyncio.QueueFull):  # then it has enough to do
                assert self._flush_queue is not None  # noqa: S101  (it is made by `connect`)
                self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())
            return
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        with contextlib.suppress(OSError, RuntimeError):  # lost: reading tells of it
            self._transport.write(b"".join(pending))
        if writer.transport.get_write_buffer_size() > _CHOKED:
            self._choke(writer)

    def _choke(self, writer: asyncio.StreamWriter) -> None:
        """Take in no more until the server has taken what is sent: it would grow without bound."""
        if self._draining is None:
            self.choked = True
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            self._draining = asyncio.create_task(self._drained(writer))

    async def _drained(self, writer: asyncio.StreamWriter) -> None:
        try:
            await writer.drain()
            writer.transport.resume_reading()  # type: ignore[attr-defined]
        except (OSError, RuntimeError):
            pass
        finally:
            self.choked, self._draining = False, None

    async def taken(self) -> None:
        """Return when the server takes in what is sent, or is lost."""
        if self._draining is not None:
            await asyncio.wait({self._draining})

    # --- life ----------------------------------------------------------------------------------

    async def withdraw(self) -> None:
        """Take nothing more but answers, and handle what has come."""
        for laid in list(self._subs.values()):
            if not laid.subject.startswith(INBOXES):
                await laid.drain()  # type: ignore[no-untyped-call]

    def when_deaf(self, tell: Callable[[], None]) -> None:
        """Call `tell` when reading ends, for whatever reason."""
        if self._reading_task is not None:
            self._reading_task.add_done_callback(lambda _: tell())

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        if self._pending and self._transport is not None:
            self._transport.writelines(self._pending[:])
            self._pending = []
            self._pending_data_size = 0
        await super()._send_ping(future)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pings_outstanding = 0
        else:
            await super()._process_pong()

    async def close(self) -> None:
        """Close; also when nats-py is closing already, the socket is shut when this returns.

        After a refused login or a revocation nats-py closes in a task of its own, for which nobody
        waits and which may end with the event loop.
        """
        try:
            await super().close()
        finally:
            self._hang_up()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        try:
            await super()._close(status, do_cbs)
        except Exception as error:  # noqa: BLE001  (an OSError; with uvloop a RuntimeError)
            log.debug("closing once more", why=reason(error))
            self._pending = []
            self._pending_data_size = 0
            self._status = Client.DISCONNECTED
            await super()._close(status, do_cbs)
        except BaseException:
            self._hang_up()  # cancelled on the way: it would not be tried again
            raise

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]


def _queue(subscription: Subscription, message: Message) -> None:
    """Leave it to the subscription's own task, unless that is far behind."""
    size, queue = len(message.data), subscription._pending_queue  # noqa: SLF001
    if queue.full() or subscription._pending_size + size > subscription._pending_bytes_limit:  # noqa: SLF001
        log.error("message dropped", subject=message.subject, why="its callback is too slow")
        return
    queue.put_nowait(message)  # type: ignore[arg-type]
    subscription._pending_size += size  # noqa: SLF001


def reason(error: BaseException | None) -> str:
    if isinstance(error, nats.errors.UnexpectedEOF):
        return "the server closed the connection"
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error or "closed").removeprefix("nats: ") or type(error).__name__
