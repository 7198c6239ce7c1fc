"""What the journal has of single tenants of a lane, read apart from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from tenantry import streams, subjects
from tenantry.bus import Bus
from tenantry.bus.jetstream import StoredMessage
from tenantry.bus.reading import read
from tenantry.bus.scan import scan
from tenantry.runtime import journal

Messages = AsyncGenerator[StoredMessage, None]


class Past:
    """Reads by the one consumer that a service may make for this besides its lane's.

    While that is in use what else is to be read is looked up message by message, which costs the
    server more.
    """

    def __init__(self, bus: Bus, service: str, partition: int) -> None:
        self._bus = bus
        self._name = journal.reader_name(service, partition)
        self._taken = False

    @asynccontextmanager
    async def read(self, tenant: str, *, first: int, ahead: int) -> AsyncIterator[Messages]:
        """The messages of a tenant from a sequence on, in order; raises as `read` does."""
        subject = subjects.stored_of(tenant)
        if self._taken:
            async with aclosing(scan(self._bus, streams.JOURNAL, subject, first=first)) as found:
                yield found
            return
        self._taken = True
        try:
            by_consumer = read(
                self._bus, streams.JOURNAL, subject, first=first, ahead=ahead, name=self._name
            )
            async with aclosing(by_consumer) as found:
                yield found
        finally:
            self._taken = False
