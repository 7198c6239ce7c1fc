"""Looking into a stream without a consumer: for one message, or from one end to the other.

Nothing is left behind on the server, a reader that stops half way costs nothing, and one that lost
its connection asks on from where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from tenantry import tasks
from tenantry.bus.connection import Bus
from tenantry.bus.jetstream import NOT_FOUND, STREAM_NOT_FOUND, StoredMessage, api, get_batch
from tenantry.errors import DeadlineExceeded, JetStreamError, Unavailable

BATCH = 1_000
"""Messages by one request: to begin one costs the server a millisecond."""

_PAUSE = 0.1

T = TypeVar("T")


async def find(bus: Bus, stream: str, seq: int) -> StoredMessage | None:
    """The message of `stream` with this sequence, or None."""
    found = await find_next(bus, stream, ">", first=seq)
    return found if found is not None and found.seq == seq else None


async def find_next(
    bus: Bus, stream: str, subject: str, *, first: int = 1, at: float | None = None
) -> StoredMessage | None:
    """The first message on `subject` (with wildcards) from the sequence `first` on, or None.

    With `at`, the first one stored at that moment (seconds since the epoch) or later.
    """
    found = await get_batch(bus, stream, seq=first, subject=subject, batch=1, start_time=at)
    return found[0] if found else None


async def find_last(bus: Bus, stream: str, subject: str, *, patience: float = 0.0) -> int:
    """The last sequence on `subject`, 0 where there is none, as the stream's leader knows it.

    A connection that is lost is waited for as in :func:`scan`.
    """
    return await _again(lambda: _last(bus, stream, subject), stream, patience)


async def _last(bus: Bus, stream: str, subject: str) -> int:
    try:
        found = await api(bus, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    except JetStreamError as error:
        if error.status == NOT_FOUND and error.err_code != STREAM_NOT_FOUND:
            return 0
        raise
    return int(found["message"]["seq"])


async def scan(
    bus: Bus, stream: str, subject: str, *, first: int = 1, patience: float = 5.0
) -> AsyncGenerator[StoredMessage, None]:
    """The messages of `stream` on `subject` (with wildcards), in order, from `first` on.

    One batch comes while the one before is looked at. It ends where the stream ends; a replica of
    the stream that lags behind may let it end before. A connection that is lost for less than
    `patience` seconds is waited for, and nothing is left out or comes twice. Raises
    :class:`Unavailable` after that, and where there is no such stream.
    """
    batch = await _batch(bus, stream, subject, first, patience)
    while batch:
        coming = None
        if batch[-1].pending:
            coming = asyncio.create_task(
                _batch(bus, stream, subject, batch[-1].seq + 1, patience), name=f"scan {stream}"
            )
        try:
            for message in batch:
                yield message
            batch = await coming if coming is not None else []
        finally:
            await tasks.end(coming)


async def _batch(
    bus: Bus, stream: str, subject: str, first: int, patience: float
) -> list[StoredMessage]:
    def ask() -> Awaitable[list[StoredMessage]]:
        return get_batch(bus, stream, seq=first, subject=subject, batch=BATCH)

    return await _again(ask, stream, patience)


async def _again(ask: Callable[[], Awaitable[T]], stream: str, patience: float) -> T:
    """Ask, and again where the connection was lost meanwhile."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while True:
        try:
            return await ask()
        except (Unavailable, DeadlineExceeded) as error:
            if loop.time() > end:
                raise Unavailable(f"the stream {stream} can't be read: {error.message}") from None
            await asyncio.sleep(_PAUSE)
