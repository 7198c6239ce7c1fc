"""Values of a service's state as the runtime commits them: each under its message's fence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.bus.kv import Record
from tenantry.context import state
from tenantry.context.fence import Fence
from tenantry.context.latest import Latest, Seen
from tenantry.errors import (
    Conflict,
    DeadlineExceeded,
    JetStreamError,
    TooLarge,
    Unavailable,
    from_inside,
)

_PAUSE = 0.02
_LONGEST = 2.0
"""First and longest pause between two tries while NATS gives no answer, seconds."""

log = structlog.get_logger("tenantry.dispatch")


class Values:
    """Reads and writes the state of one service, and remembers the last revision of each key.

    What is remembered saves a read: a write over it is a compare-and-set, so one that is outdated
    shows as a conflict.
    """

    def __init__(self, bus: Bus) -> None:
        self.bucket = Latest(bus)
        """The bucket that handlers read: it knows what was written here."""

    def known(self, key: str) -> Seen | None:
        """The key as it was last seen here, if that is remembered."""
        return self.bucket.seen(key)

    async def read(self, key: str) -> Record | None:
        """Read a key from a replica that has all that is known here."""
        with from_inside():
            record = await self.bucket.read(key)
        self.bucket.remember(key, Seen.of(record))
        return record

    async def look(self, key: str) -> Seen:
        """How the key is now."""
        return Seen.of(await self.read(key))

    async def read_until(self, key: str, fence: Fence) -> Record | None:
        """Read a key, again until NATS answers; raises :class:`LaneLost` meanwhile."""
        return await _asked(key, fence, lambda: self.read(key))

    async def put(
        self, key: str, body: bytes | None, over: Seen, fence: int, claim: object | None = None
    ) -> None:
        """Write once over exactly what was seen; None deletes.

        With the `claim` of the partition the key counts as known since then.

        Raises :class:`Conflict` where the key has changed, :class:`Unavailable` and
        :class:`DeadlineExceeded` where the outcome is unknown, :class:`TooLarge` and
        :class:`JetStreamError` where the bucket refuses.
        """
        try:
            with from_inside():
                revision = await state.write(self.bucket, key, body, over.revision, fence)
        except TooLarge as large:
            large.inside = False  # no other try can help
            raise
        except JetStreamError as error:
            if error.err_code in js.TOO_LARGE:
                raise TooLarge(f"a value is refused: {error.message}") from None
            raise
        if claim is not None:
            self.bucket.remember(key, Seen(revision, fence, exists=body is not None), claim)

    async def settle(self, key: str, body: bytes | None, fence: int, claim: object | None) -> None:
        """Write one value of a committed message unless it, or a later one, is there already.

        Writes over whatever has a lower fence. That can be nothing that the message should have
        seen: what it has read was proven to be current before it was committed. It is what a
        request or an unordered message has written, which keeps the fence that was there; or what
        an earlier message has written, this service's or a former owner's whose write came late,
        under a key that this message has not read.

        Raises as :meth:`put` does, but for conflicts.
        """
        seen, pause = self.known(key), 0.0
        while True:
            if seen is None:
                seen = await self.look(key)
            if seen.fence >= fence:
                return
            try:
                await self.put(key, body, seen, fence, claim)
            except Conflict:
                await asyncio.sleep(pause)  # a replica of the stream may lag behind
                seen, pause = None, min(pause + _PAUSE, _LONGEST)
            else:
                return

    # --- values that are certainly current -----------------------------------------------------

    async def prove(self, key: str, record: Record | None, fence: Fence) -> bool:
        """Tell whether a key still is as it was read, by writing just that anew.

        Then no former owner can change it any more. Raises :class:`LaneLost`, and
        :class:`JetStreamError` where the bucket refuses.
        """
        while True:
            await fence.ours()
            try:
                with from_inside():
                    await self.bucket.renew(key, record, fence.claim)
            except Conflict:
                return False
            except (Unavailable, DeadlineExceeded):
                there = await self.read_until(key, fence)
                if _content(there) != _content(record):
                    return False
                record = there
            else:
                return True

    async def current(self, key: str, service: str) -> Record | None:
        """Read a key of the service for certain; see :meth:`Latest.current`."""
        with from_inside():
            return await self.bucket.current(key, service)

    async def current_until(self, key: str, service: str, fence: Fence) -> Record | None:
        """The same, asked until NATS answers; raises :class:`LaneLost` meanwhile."""
        return await _asked(key, fence, lambda: self.current(key, service))


async def _asked(
    key: str, fence: Fence, ask: Callable[[], Awaitable[Record | None]]
) -> Record | None:
    pause = _PAUSE
    while True:
        await fence.ours()
        try:
            return await ask()
        except (Unavailable, DeadlineExceeded) as error:
            tenant = key.partition(".")[0]
            log.warning("the state does not answer", tenant=tenant, key=key, why=error.message)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST)


def _content(record: Record | None) -> tuple[bytes | None, int]:
    """The content of a record, whatever its revision."""
    seen = Seen.of(record)
    return record.body if record is not None and seen.exists else None, seen.fence
