"""nats-py's client as the bus needs it: made for one connection, thrown away when it is lost."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client

log = structlog.get_logger("tenantry.bus")


class NatsClient(Client):
    """nats-py's client without four of its traps (seen in 2.16.0).

    A header block that is not text, which any tenant's program can send, ends its reading for good.
    Its read loop ends, without a word and for good, at the PONG for a flush that was cancelled or
    timed out meanwhile: the connection stays open and hears nothing any more. It writes a PING
    before what waits to be written: a drain would lose what comes between PONG and UNSUB. And where
    something waits to be written when the connection is lost, it fails while it closes, half way:
    nobody is told, subscriptions and socket stay behind.
    """

    def when_deaf(self, tell: Callable[[], None]) -> None:
        """Call `tell` when reading ends, for whatever reason."""
        if self._reading_task is not None:
            self._reading_task.add_done_callback(lambda _: tell())

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """As nats-py does it, but a name is looked at once: it looks at each letter, each time."""
        fields = {}
        for line in raw.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and (key := _header_name(name)) is not None:
                fields[key] = value.strip().decode("utf-8", "replace")
        return fields

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except Exception:  # noqa: BLE001  (whatever it stumbles over, the next message counts)
            return None

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

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        try:
            await super()._close(status, do_cbs)
        except Exception as error:  # noqa: BLE001  (an OSError; with uvloop a RuntimeError)
            log.debug("closing once more", why=reason(error))
            self._pending = []
            self._pending_data_size = 0
            self._status = Client.DISCONNECTED
            await super()._close(status, do_cbs)


@functools.lru_cache(maxsize=1024)
def _header_name(raw: bytes) -> str | None:
    """The name of a header; None for one that can't be."""
    try:
        name = raw.strip().decode("ascii")
    except UnicodeDecodeError:
        return None
    return None if any(letter.isspace() for letter in name) else name


def size(payload: bytes, headers: Mapping[str, str]) -> int:
    """How many bytes the server counts: `NATS/1.0`, a line for each header, an empty one, body."""
    text = sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
    return len(payload) + text + 12


def reason(error: BaseException | None) -> str:
    if isinstance(error, nats.errors.UnexpectedEOF):
        return "the server closed the connection"
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error or "closed").removeprefix("nats: ") or type(error).__name__
