"""JetStream's snapshots: a stream with its consumers, at one moment, as one run of bytes.

The server packs it (`$JS.API.STREAM.SNAPSHOT`, `$JS.API.STREAM.RESTORE`); what is inside is its
own affair. Chunks are acknowledged, so that no more than a window of them is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from tenantry.bus.connection import Bus, Message, Subscription
from tenantry.bus.jetstream import api
from tenantry.errors import JetStreamError, Unavailable

CHUNK = 128 * 1024
"""How many bytes a message carries; NATS takes no less than this."""

_SILENCE = 30.0
_PATIENCE = 15
_PAUSE = 0.2
_NO_PEERS = 10005
_SLOWEST = 5_000_000  # bytes a second that a server unpacks at the least


class Snapshot:
    """One that is being taken: `config` and `state` are the stream's at its moment."""

    def __init__(self, bus: Bus, stream: str, write: Callable[[bytes], object]) -> None:
        self.stream = stream
        self.config: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        self._bus = bus
        self._write = write
        self._chunks = 0
        self._moved = asyncio.Event()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscription: Subscription | None = None
        self._forget: Callable[[], None] = lambda: None

    @classmethod
    async def begin(cls, bus: Bus, stream: str, write: Callable[[bytes], object]) -> Snapshot:
        """Ask for one; its bytes go to `write` as they come. :meth:`end` has to be called.

        Raises :class:`JetStreamError` where there is no such stream.
        """
        taken = cls(bus, stream, write)
        taken._forget = bus.on_reconnect(taken._lost)
        try:
            inbox = await bus.subscribe(f"{bus.inbox}.snapshot.{stream}", taken._receive)
            taken._subscription = inbox
            ask = {"deliver_subject": inbox.subject, "chunk_size": CHUNK}
            answer = await api(bus, f"STREAM.SNAPSHOT.{stream}", ask, timeout=_SILENCE)
        except BaseException:
            await taken.stop()
            raise
        taken.config, taken.state = answer["config"], answer["state"]
        return taken

    async def end(self) -> None:
        """Return when all of it has been written.

        Raises :class:`Unavailable` when the connection or a part was lost, :class:`JetStreamError`
        when the server gave up, and what `write` raised.
        """
        try:
            while not self._done.done():
                self._moved.clear()
                try:
                    async with asyncio.timeout(_SILENCE):
                        await self._moved.wait()
                except TimeoutError:
                    raise Unavailable(f"the snapshot of {self.stream} does not go on") from None
            await self._done
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Take no more of it; may be called again."""
        self._forget()
        if not self._done.cancel() and not self._done.cancelled():
            self._done.exception()  # seen
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.stop()

    async def _receive(self, message: Message) -> None:
        if self._done.done():
            return
        try:
            await self._take(message)
        except Exception as error:  # noqa: BLE001  (a full disk, above all: `end` raises it)
            self._fail(error)
        self._moved.set()

    async def _take(self, message: Message) -> None:
        if not message.data:
            headers: dict[Any, str] = message.headers or {}
            if headers.get("Status", "204") != "204":
                why = headers.get("Description", headers["Status"])
                raise JetStreamError(f"the snapshot of {self.stream} failed: {why}")
            self._done.set_result(None)
            return
        self._chunks += 1
        # The ack subject ends with the chunk's number; the last chunk wants no ack.
        if message.reply and int(message.reply.rpartition(".")[2]) != self._chunks:
            raise Unavailable(f"a part of the snapshot of {self.stream} was lost")
        self._write(message.data)
        if message.reply:
            await self._bus.publish(message.reply)

    def _lost(self) -> None:
        self._fail(Unavailable("the connection to NATS was lost during the snapshot"))

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)
        self._moved.set()


async def restore(
    bus: Bus, config: dict[str, Any], state: dict[str, Any], chunks: Iterable[bytes]
) -> dict[str, Any]:
    """Make a stream out of a snapshot's chunks; returns its info.

    Raises :class:`JetStreamError` where there is such a stream already, or the bytes are broken:
    then NATS may have left a part of the stream behind.
    """
    ask = {"config": config, "state": state}
    answer = await _begin(bus, f"STREAM.RESTORE.{config['name']}", ask)
    subject, total = str(answer["deliver_subject"]), 0
    for chunk in chunks:
        _check(await (_send(bus, subject, chunk) if total else _send_first(bus, subject, chunk)))
        total += len(chunk)
    size = max(total, int(state.get("bytes", 0)))
    info = _check(await bus.call(subject, timeout=_SILENCE + size / _SLOWEST))
    if not info:
        raise JetStreamError(f"the restore of {config['name']} ended without a word")
    return info


async def _send(bus: Bus, subject: str, chunk: bytes) -> Message:
    return await bus.call(subject, chunk, timeout=_SILENCE)


async def _send_first(bus: Bus, subject: str, chunk: bytes) -> Message:
    """The server that restores listens already, but the one that we talk to may not know yet."""
    for _ in range(_PATIENCE):
        try:
            return await _send(bus, subject, chunk)
        except Unavailable:
            await asyncio.sleep(_PAUSE)
    return await _send(bus, subject, chunk)


async def _begin(bus: Bus, path: str, ask: dict[str, Any]) -> dict[str, Any]:
    """A cluster that has just started, or is busy, takes a while to see all of its servers."""
    for _ in range(_PATIENCE):
        try:
            return await api(bus, path, ask, timeout=_SILENCE)
        except JetStreamError as error:
            if error.err_code != _NO_PEERS:
                raise
        await asyncio.sleep(1.0)
    return await api(bus, path, ask, timeout=_SILENCE)


def _check(answer: Message) -> dict[str, Any]:
    """What the server says: nothing to a chunk, unless it gives up."""
    if not answer.data:
        return {}
    said: dict[str, Any] = msgspec.json.decode(answer.data)
    if error := said.get("error"):
        raise JetStreamError(
            str(error.get("description", "unknown error")),
            status=int(error.get("code", 500)),
            err_code=int(error.get("err_code", 0)),
        )
    return said
