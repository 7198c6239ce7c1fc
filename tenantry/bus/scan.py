"""Reading a stream from one end to the other, without a consumer.

Nothing is left behind on the server, a reader that stops half way costs nothing, and one that lost
its connection asks on from where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from tenantry.bus.connection import Bus
from tenantry.bus.jetstream import StoredMessage, get_batch
from tenantry.errors import DeadlineExceeded, Unavailable

_ATTEMPTS = 4
_PAUSE = 0.5


async def find(bus: Bus, stream: str, seq: int) -> StoredMessage | None:
    """The message of `stream` with this sequence, or None."""
    found = await get_batch(bus, stream, seq=seq, batch=1)
    return found[0] if found and found[0].seq == seq else None


async def scan(
    bus: Bus, stream: str, subject: str, *, first: int = 1
) -> AsyncGenerator[StoredMessage, None]:
    """The messages of `stream` on `subject` (with wildcards), in order, from `first` on.

    It ends where the stream ends. Raises :class:`Unavailable` when NATS stays away, or has no such
    stream.
    """
    failed = 0
    while True:
        try:
            batch = await get_batch(bus, stream, seq=first, subject=subject)
        except (Unavailable, DeadlineExceeded) as error:
            failed += 1
            if failed == _ATTEMPTS:
                raise Unavailable(f"the stream {stream} can't be read: {error.message}") from None
            await asyncio.sleep(_PAUSE)
            continue
        for message in batch:
            yield message
        if not batch or not batch[-1].pending:
            return
        first, failed = batch[-1].seq + 1, 0
