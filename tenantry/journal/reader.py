"""One tenant's messages in the order of the journal, in batches, wherever one wants to begin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.bus.jetstream import StoredMessage
from tenantry.bus.scan import find_last, find_next, scan
from tenantry.streams import JOURNAL

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
    position = wanted.since
    while not wanted.until or position < wanted.until:
        found = scan(bus, JOURNAL, wanted.subject, first=position, patience=patience)
        async with aclosing(found) as messages:
            async for message in messages:
                if wanted.until and message.seq >= wanted.until:
                    return
                if wanted.has(message):
                    yield message
                position = message.seq + 1
        if follow:
            await asyncio.sleep(_POLL)
        elif position > await find_last(bus, JOURNAL, wanted.subject, patience=patience):
            return
        else:
            # A replica has answered that has not caught up; or it was erased just now.
            await asyncio.sleep(_PAUSE)


async def first_at(bus: Bus, tenant: str, moment: float) -> int | None:
    """The tenant's first sequence stored at `moment` (seconds since the epoch) or later."""
    moment = min(max(moment, 0.0), _MAX_TIME)
    found = await find_next(bus, JOURNAL, subjects.stored_of(tenant), at=moment)
    return found.seq if found is not None else None


async def from_last(bus: Bus, wanted: Selection, count: int) -> int:
    """Where to begin so that `count` or a little more of the messages up to now follow.

    Only for selections without `actions` and `until`, which NATS can count by itself.
    """
    low, high = wanted.since, await find_last(bus, JOURNAL, wanted.subject)
    while low < high:  # the greatest sequence from which on there are still so many
        middle = (low + high + 1) // 2
        found = await find_next(bus, JOURNAL, wanted.subject, first=middle)
        if found is not None and found.pending + 1 >= count:
            low = middle
        else:
            high = middle - 1
    return low
