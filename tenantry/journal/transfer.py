"""Carrying one tenant's journal elsewhere: out to a file, and in from one."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from pathlib import Path

import msgspec

from tenantry import subjects
from tenantry.bus import Bus, Message, api
from tenantry.bus import jetstream as js
from tenantry.bus.scan import find_last, find_next
from tenantry.errors import Conflict, Unavailable
from tenantry.journal import archive
from tenantry.journal.archive import Head, Line, Summary
from tenantry.journal.reader import Selection, read
from tenantry.streams import JOURNAL
from tenantry.wire import headers as names

_IN_FLIGHT = 64
_TIMEOUT = 30.0
_RENEW = 60.0

Tell = Callable[[int], None]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import did, or would do."""

    tenant: str
    count: int
    """Messages in the file."""
    stored: int
    """Messages stored now."""
    before: int
    """Messages that an earlier import had stored."""
    taken_back: int = 0
    """Messages that an earlier import had stored beyond a gap, and that were stored anew."""


async def identity(bus: Bus) -> str:
    """Which journal this is: 12 hex digits, others in another mesh."""
    created = str((await api(bus, f"STREAM.INFO.{JOURNAL}"))["created"])
    return hashlib.sha256(created.encode()).hexdigest()[:12]


async def export(
    bus: Bus, wanted: Selection, path: Path, *, force: bool = False, tell: Tell = lambda _: None
) -> Summary:
    """Write the selected messages that there are now to a file; `tell` hears how many so far.

    Raises :class:`SetupError` where the file can't be written or exists, :class:`BadSubject` for
    what is no tenant's id.
    """
    subjects.check_tenant(wanted.tenant)
    end = await find_last(bus, JOURNAL, wanted.subject) + 1
    wanted = msgspec.structs.replace(wanted, until=min(wanted.until or end, end))
    head = Head(
        format=archive.FORMAT,
        version=archive.VERSION,
        tenant=wanted.tenant,
        journal=await identity(bus),
        since=wanted.since,
        until=wanted.until,
        exported=round(time.time(), 3),
    )
    with archive.create(path, force=force) as file:
        writer = archive.Writer(file, head)
        async for message in read(bus, wanted):
            fields = {k: v for k, v in message.headers.items() if k != names.CONTEXT}
            name = subjects.parse_stored(message.subject).name
            writer.add(
                Line(
                    seq=message.seq,
                    time=message.time,
                    action=name,
                    headers=fields,
                    data=message.data,
                )
            )
            tell(writer.count)
        digest = writer.finish()
    return Summary(head=head, count=writer.count, sha256=digest)


async def check_new(bus: Bus, summary: Summary, tenant: str) -> None:
    """Raise :class:`Conflict` where the journal still holds what the file was made from."""
    if tenant != summary.head.tenant:
        return
    for line in (summary.first, summary.last):
        if line is None:
            continue
        subject = subjects.stored_of(tenant, line.action)
        found = await find_next(bus, JOURNAL, subject, first=line.seq)
        if found is not None and (found.seq, found.time) == (line.seq, line.time):
            raise Conflict(
                f"the journal still holds messages of {tenant} that this file was made from",
                hint="erase them first, or import with --as under another tenant",
            )


class Importer:
    """Publishes a file's messages for one tenant, in order, from where an earlier import ended."""

    def __init__(
        self,
        bus: Bus,
        path: Path,
        summary: Summary,
        *,
        tenant: str,
        token: Callable[[], Awaitable[str]],
        retention: int = 0,
        deliver: bool = False,
    ) -> None:
        self._bus = bus
        self._path = path
        self._summary = summary
        self._tenant = tenant
        self._token = token
        self._ttl = {names.TTL: f"{retention}s"} if retention else {}
        self._deliver = deliver

    async def run(self, *, dry: bool = False, tell: Tell = lambda _: None) -> Imported:
        """Import what is not there yet; `tell` hears how many messages are there.

        Raises :class:`Unavailable` and :class:`JetStreamError`: what was stored until then stays,
        and another run goes on from there.
        """
        before, astray = await self._arrived()
        done = before
        if not dry:
            for seq in astray:
                await api(self._bus, f"STREAM.MSG.DELETE.{JOURNAL}", {"seq": seq})
            async for count in self._publish(before):
                done += count
                tell(done)
        return Imported(
            tenant=self._tenant,
            count=self._summary.count,
            stored=done - before,
            before=before,
            taken_back=len(astray),
        )

    async def _arrived(self) -> tuple[int, list[int]]:
        """How many messages an earlier import has stored without a gap, and what lies beyond.

        A journal that was full may have refused one message and taken a smaller one after it.
        """
        ours = f"{self._summary.head.journal}."
        expected = (line.seq for line in archive.read(self._path))
        following = next(expected, 0)
        count, astray = 0, list[int]()
        if self._summary.first is None:
            return count, astray
        async for message in read(self._bus, Selection(tenant=self._tenant)):
            source = message.headers.get(names.SOURCE, "")
            if not source.startswith(ours):
                continue
            seq = int(source.removeprefix(ours))
            if seq == following and not astray:
                count, following = count + 1, next(expected, 0)
            elif self._summary.first.seq <= seq and (seq > following > 0 or astray):
                astray.append(message.seq)
        return count, astray

    async def _publish(self, skip: int) -> AsyncIterator[int]:
        """Publish all but the first `skip` messages; yields how many more have been stored."""
        lines = archive.read(self._path)
        for _ in range(skip):
            next(lines)
        token, until = "", 0.0
        while batch := list(islice(lines, _IN_FLIGHT)):
            if time.monotonic() > until:
                token, until = await self._token(), time.monotonic() + _RENEW
            await self._store(batch, token)
            yield len(batch)

    async def _store(self, batch: list[Line], token: str) -> None:
        acks: list[asyncio.Future[Message]] = []
        try:
            async with asyncio.timeout(_TIMEOUT):
                for line in batch:
                    subject = f"tenant.{self._tenant}.{line.action}"
                    fields = self._headers(line, token)
                    acks.append(await js.begin_store(self._bus, subject, line.data, fields))
                # All of them, also behind a refusal: one that is under way could still be stored,
                # and the next run would have to take it back.
                await asyncio.wait(acks)
                for line, ack in zip(batch, acks, strict=True):
                    stored = js.stored(await ack)
                    if stored.duplicate:
                        await self._check_there(line, stored.seq)
        except TimeoutError:
            raise Unavailable(
                "the journal does not answer", hint="run it again: it goes on"
            ) from None
        finally:
            for ack in acks:
                if not ack.cancel() and not ack.cancelled():
                    ack.exception()  # seen: a second failure says no more than the first

    async def _check_there(self, line: Line, seq: int) -> None:
        """A duplicate that was erased meanwhile would be lost: NATS still knows its id."""
        subject = subjects.stored_of(self._tenant)
        found = await find_next(self._bus, JOURNAL, subject, first=seq)
        if found is None or found.seq != seq:
            raise Conflict(
                f"the journal takes message {line.seq} for a repeat of one that was erased",
                hint="run it again in some minutes, when the window for repeats is over",
            )

    def _headers(self, line: Line, token: str) -> dict[str, str]:
        # Those of NATS would mean something again: a condition, a roll-up, a life that is over.
        fields = {k: v for k, v in line.headers.items() if not k.lower().startswith("nats-")}
        own = line.headers.get(names.MSG_ID)
        fields.setdefault(names.MESSAGE_ID, own or f"journal:{line.seq}")
        fields.setdefault(names.STORED, f"{line.time:.6f}")
        journal = self._summary.head.journal
        fields[names.SOURCE] = f"{journal}.{line.seq}"
        # Not the id it had: two that came hours apart may share one, and now come together.
        fields[names.MSG_ID] = f"{self._tenant}.i.{journal}.{line.seq}"
        fields |= {names.CONTEXT: token, **self._ttl}
        only = line.headers.get(names.ONLY, "").removeprefix(names.HISTORY)
        if not self._deliver:
            fields[names.ONLY] = f"{names.HISTORY}{only}"
        elif only:
            fields[names.ONLY] = only
        else:
            fields.pop(names.ONLY, None)
        return fields
