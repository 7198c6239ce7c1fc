"""Counts what a service has not settled yet, from its checkpoints and the journal.

A message that the server hands out by a direct get says how many of the same filter come after it.
So one request counts all messages of a filter from a sequence on, however many there are.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import NamedTuple

import msgspec

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.bus.scan import find_last, find_next, scan
from tenantry.messages.checkpoints import Checkpoint, Open
from tenantry.streams import JOURNAL

_AT_ONCE = 16
"""Requests to the server at a time."""

_MARKER = "KV-Operation"
_decode = msgspec.json.Decoder(Checkpoint).decode


class Progress(NamedTuple):
    """How far a service has come in one partition."""

    service: str
    partition: int
    record: Checkpoint
    end: int
    """The last sequence of the partition; 0 if the journal holds nothing of it."""

    @property
    def through(self) -> bool:
        """True if the service has read everything that the partition holds."""
        return self.record.read_to >= self.end

    @property
    def floor(self) -> int:
        """Every message up to here is settled."""
        opened = (row.next - 1 for row in self.record.open.values())
        return min(opened, default=self.record.read_to)

    def sidelined(self) -> dict[str, Open]:
        """The rows of the checkpoint that are read by a reader of their own."""
        return {name: row for name, row in self.record.open.items() if row.why}

    def in_hand(self) -> dict[str, Open]:
        """The other rows of the checkpoint: their messages wait or run in the owner's memory."""
        return {name: row for name, row in self.record.open.items() if not row.why}

    def unread(self, tenant: str = "*") -> list[Span]:
        """The messages after `read_to`, of one tenant or of all."""
        if self.through:
            return []
        first = self.record.read_to + 1
        return [Span(self._subject(tenant, name), first, None) for name in self.record.names]

    def spans(self, name: str, row: Open) -> list[Span]:
        """The messages of a row of the checkpoint; none for a single unordered message."""
        tenant, shared, single = name.partition("#")
        if single:
            return []
        limits = self._unordered if shared else self._ordered
        found = []
        for each in self.record.names:
            first, last = limits(each, row)
            if first <= last:
                found.append(Span(self._subject(tenant, each), first, self._open_end(last)))
        return found

    def _ordered(self, name: str, row: Open) -> tuple[int, int]:
        since = self.record.unordered.get(name, self.record.read_to)
        return row.next, min(since, self.record.read_to)

    def _unordered(self, name: str, row: Open) -> tuple[int, int]:
        since = self.record.unordered.get(name, self.record.read_to)
        return max(row.next, since + 1), self.record.read_to

    def _open_end(self, last: int) -> int | None:
        """No end where nothing comes after it: that saves a request."""
        return None if last >= self.end else last

    def _subject(self, tenant: str, name: str) -> str:
        return f"journal.{self.partition}.{tenant}.{name}"


class Span(NamedTuple):
    """The messages on a subject from one sequence to another."""

    subject: str
    first: int
    last: int | None
    """Inclusive; None for all that there are."""


class Count(NamedTuple):
    """A number of messages."""

    messages: int = 0
    oldest: float | None = None
    """When the first of them was stored, seconds since the epoch."""


def add(counts: Iterable[Count]) -> Count:
    """All of them together."""
    found = list(counts)
    times = [each.oldest for each in found if each.oldest is not None]
    return Count(sum(each.messages for each in found), min(times, default=None))


class Counter:
    """Counts messages by asking the server."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def count(self, spans: Iterable[Span], *, stream: str = JOURNAL) -> Count:
        """Count the messages of several spans."""
        return add(await asyncio.gather(*(self._span(stream, span) for span in spans)))

    async def rows(self, progress: Progress, rows: Iterable[tuple[str, Open]]) -> Count:
        """Count the messages of several rows of a checkpoint."""
        spans, singles = [], []
        for name, row in rows:
            spans += progress.spans(name, row)
            if not name.endswith("#") and "#" in name:
                singles.append(row.next)
        counted = await self.count(spans)
        if not singles:
            return counted
        oldest = await self.count([Span("journal.>", min(singles), min(singles))])
        return add((counted, Count(len(singles), oldest.oldest)))

    async def _span(self, stream: str, span: Span) -> Count:
        subject, first, last = span
        async with self._gate:
            found = await find_next(self._bus, stream, subject, first=first)
            if found is None or (last is not None and found.seq > last):
                return Count()
            if found.seq == last or not found.pending:
                return Count(1, found.time)
            after = None
            if last is not None:
                after = await find_next(self._bus, stream, subject, first=last + 1)
        beyond = after.pending + 1 if after is not None else 0
        return Count(max(1, found.pending + 1 - beyond), found.time)


async def read_progress(
    bus: Bus, partitions: Collection[int] | None = None
) -> dict[str, list[Progress]]:
    """How far each service has come, in some partitions or in all of them.

    A service is here from its first claim of a partition on. Raises
    :class:`~tenantry.errors.Unavailable`.
    """
    wanted = sorted(partitions if partitions is not None else range(subjects.PARTITIONS))
    # First the ends, then the checkpoints: so a service that keeps up is never seen behind.
    found = await asyncio.gather(*(find_last(bus, JOURNAL, f"journal.{p}.>") for p in wanted))
    ends = dict(zip(wanted, found, strict=True))
    progress: dict[str, list[Progress]] = defaultdict(list)
    async for each in scan(bus, "KV_checkpoints", "$KV.checkpoints.*.*"):
        _, _, service, number = each.subject.split(".")
        if _MARKER in each.headers or int(number) not in ends:
            continue
        with suppress(msgspec.MsgspecError):
            record = _decode(each.data)
            progress[service].append(Progress(service, int(number), record, ends[int(number)]))
    return {
        service: sorted(progress[service], key=lambda each: each.partition)
        for service in sorted(progress)
    }
