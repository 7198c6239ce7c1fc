"""One tenant's messages in the order of the journal, in batches, wherever one wants to begin."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

import msgspec

from tenantry import subjects, tasks
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import StoredMessage
from tenantry.errors import DeadlineExceeded, JetStreamError, NotAllowed, Unavailable
from tenantry.streams import JOURNAL

BATCH = 1_000
"""Messages by one request."""

BATCH_BYTES = 4 * 1024 * 1024
"""About how many bytes; one batch is read while the next one comes."""

_POLL = 0.25
_PAUSE = 0.1
_MAX_TIME = 9_000_000_000.0  # in the year 2255: NATS counts nanoseconds in 64 bits


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages of a tenant. All ids and names have been checked."""

    tenant: str
    since: int = 1
    """First sequence of the journal."""
    until: int = 0
    """First sequence that is not; 0 for no end."""
    service: str = ""
    """Only those of this service."""
    actions: tuple[str, ...] = ()
    """Only these (`<service>.<action>`); empty for all."""

    @property
    def subject(self) -> str:
        """The narrowest filter that NATS can apply by itself."""
        if len(self.actions) == 1:
            return subjects.stored_of(self.tenant, self.actions[0])
        services = {name.partition(".")[0] for name in self.actions} or {self.service}
        only = services.pop() if len(services) == 1 else ""
        return subjects.stored_of(self.tenant, f"{only or '*'}.*")

    def has(self, message: StoredMessage) -> bool:
        """Whether a message that fits `subject` is one of these."""
        return not self.actions or subjects.parse_stored(message.subject).name in self.actions


async def read(
    bus: Bus, wanted: Selection, *, follow: bool = False, patience: float = 30.0
) -> AsyncIterator[StoredMessage]:
    """The selected messages in order; with `follow`, those to come too, without end.

    A connection that is lost for less than `patience` seconds is waited for, and nothing is left
    out or comes twice. Raises :class:`Unavailable` after that.
    """
    position, ahead = wanted.since, _Ahead(bus, wanted.subject, patience)
    try:
        while not wanted.until or position < wanted.until:
            found = await ahead.batch(position)
            for message in found:
                if wanted.until and message.seq >= wanted.until:
                    return
                if wanted.has(message):
                    yield message
                position = message.seq + 1
            if found:
                continue
            if follow:
                await asyncio.sleep(_POLL)
            elif position > await last(bus, wanted.subject):
                return
            else:
                # A replica has answered that has not caught up; or it was erased just now.
                await asyncio.sleep(_PAUSE)
    finally:
        await ahead.stop()


class _Ahead:
    """Has the next batch come while one is read: to begin one costs the server a millisecond."""

    def __init__(self, bus: Bus, subject: str, patience: float) -> None:
        self._ask = functools.partial(_batch, bus, subject, patience=patience)
        self._task: asyncio.Task[list[StoredMessage]] | None = None

    async def batch(self, position: int) -> list[StoredMessage]:
        """What comes from `position` on, which is where the last batch ended, if it had any."""
        task, self._task = self._task, None
        found = await (task or self._ask(position))
        if found:
            self._task = asyncio.create_task(self._ask(found[-1].seq + 1))
        return found

    async def stop(self) -> None:
        await tasks.end(self._task)
        if self._task is not None and not self._task.cancelled():
            self._task.exception()  # seen: nobody wants that batch any more


async def first_at(bus: Bus, tenant: str, moment: float) -> int | None:
    """The tenant's first sequence stored at `moment` (seconds since the epoch) or later."""
    moment = min(max(moment, 0.0), _MAX_TIME)
    subject = subjects.stored_of(tenant)
    found = await js.get_batch(bus, JOURNAL, subject=subject, batch=1, start_time=moment)
    return found[0].seq if found else None


async def from_last(bus: Bus, wanted: Selection, count: int) -> int:
    """Where to begin so that `count` or a little more of the messages up to now follow.

    Only for selections without `actions` and `until`, which NATS can count by itself.
    """
    low, high = wanted.since, await last(bus, wanted.subject)
    while low < high:  # the greatest sequence from which on there are still so many
        middle = (low + high + 1) // 2
        found = await js.get_batch(bus, JOURNAL, seq=middle, subject=wanted.subject, batch=1)
        if found and found[0].pending + 1 >= count:
            low = middle
        else:
            high = middle - 1
    return low


async def last(bus: Bus, subject: str, *, stream: str = JOURNAL) -> int:
    """The last sequence on `subject`, 0 where there is none, as the stream's leader knows it."""
    try:
        found = await js.api(bus, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    except JetStreamError as error:
        if error.status == js.NOT_FOUND and error.err_code != js.STREAM_NOT_FOUND:
            return 0
        raise
    return int(found["message"]["seq"])


async def _batch(bus: Bus, subject: str, seq: int, patience: float) -> list[StoredMessage]:
    """One batch; again where the connection was lost meanwhile."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while True:
        try:
            return await js.get_batch(
                bus, JOURNAL, seq=seq, subject=subject, batch=BATCH, max_bytes=BATCH_BYTES
            )
        except NotAllowed:
            raise
        except (Unavailable, DeadlineExceeded):
            if loop.time() > end:
                raise
            await asyncio.sleep(_PAUSE)
