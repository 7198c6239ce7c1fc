"""Takes over from the version before: its consumers on the journal become checkpoints.

That version wrote down in `cursors` how far a tenant had come that did not go with the others.
How far the others had come only the consumer knows. What it has settled out of order is handled
again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import msgspec
import structlog

from tenantry import subjects, tasks
from tenantry.bus import Bucket, Bus, api
from tenantry.bus.jetstream import CONSUMER_NOT_FOUND
from tenantry.bus.kv import is_marker
from tenantry.bus.reading import read
from tenantry.bus.scan import scan
from tenantry.delivery.checkpoints import BUCKET
from tenantry.delivery.upgrade import Former, former
from tenantry.errors import Conflict, JetStreamError, Rejection
from tenantry.messages import UNDER_WAY, Checkpoint, Cursor, Open, Replay
from tenantry.streams import JOURNAL

_LOOK = 1.0
"""Between two looks at the consumers, seconds."""

_QUIET_LOOKS = 2
"""Looks in a row at which nobody may read by a consumer before it is taken over.

A worker that has lost its connection for a moment reads on.
"""

_EMPTY_LOOKS = 3
"""Looks in a row that find no consumer before the upgrade is over: a list of many consumers comes
in pages, and may leave one out while others come and go."""

_SINGLES = 256
"""Names in a checkpoint up to which an unordered message gets one of its own."""

log = structlog.get_logger("tenantry.tenants")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `cursors` as the version before wrote it."""

    next: int = 0
    """All of the tenant's messages below this sequence are settled."""
    since: int = 0
    behind: bool = False
    """Whether the tenant is read apart, from `next` on."""
    failed: int = 0
    """How often message `next` has failed."""
    first_failed: float = 0.0
    retry_at: float = 0.0
    code: str = ""
    epoch: int = 0
    generation: int = 0
    former: int | None = None

    @property
    def is_old(self) -> bool:
        """Whether it says more than a row of this version."""
        return bool(self.next or self.since or self.behind)

    @property
    def cursor(self) -> Cursor:
        """What of it this version keeps."""
        return Cursor(epoch=self.epoch, generation=self.generation, former=self.former)


Rows = Mapping[tuple[str, str], tuple[Row, int]]
"""By service and tenant, each with its revision."""

_decode = msgspec.json.Decoder(Row).decode


class Upgrade:
    """Looks for consumers of the version before, and takes each over when nobody reads by it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._checkpoints = Bucket(bus, BUCKET, Checkpoint)
        self._cursors = Bucket(bus, "cursors", Cursor)
        self._quiet: dict[str, int] = {}
        """For how many looks nobody has read by a consumer."""
        self._told: set[str] = set()
        """The services that were named in the log."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; nobody has to wait for the end."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Leave what is left to the next start."""
        await tasks.end(self._task)

    async def _run(self) -> None:
        empty = 0
        while True:
            try:
                empty = 0 if await self.look() else empty + 1
            except (Rejection, JetStreamError) as error:
                log.warning("upgrade waits", why=str(error))
            if empty == _EMPTY_LOOKS:
                return
            await asyncio.sleep(_LOOK)

    async def look(self) -> int:
        """Take over what is ready; returns how many consumers of the version before there were."""
        found = await formers(self._bus)
        ready = [each for each in found if self._is_quiet(each)]
        self._tell({each.service for each in found if each.read})
        rows = await _old_rows(self._bus)
        for each in ready:
            await self._take_over(each, rows)
        await self._clean(rows)
        return len(found)

    def _is_quiet(self, consumer: Former) -> bool:
        looks = 0 if consumer.read else self._quiet.get(consumer.name, 0) + 1
        self._quiet[consumer.name] = looks
        return looks >= _QUIET_LOOKS

    def _tell(self, services: set[str]) -> None:
        if services - self._told:
            log.warning(
                "workers of the version before still run",
                services=sorted(services),
                hint="stop them: this version takes their place once they are gone",
            )
        self._told = services

    async def _take_over(self, consumer: Former, rows: Rows) -> None:
        """Write the first checkpoint of a partition, then delete its consumers."""
        own = {
            tenant: row
            for (service, tenant), (row, _) in rows.items()
            if (service, subjects.partition(tenant)) == (consumer.service, consumer.partition)
        }
        record = await self._first_checkpoint(consumer, own)
        with contextlib.suppress(Conflict):  # an earlier start, or another replica, has written it
            await self._checkpoints.create(f"{consumer.service}.{consumer.partition}", record)
            log.info(
                "partition upgraded",
                service=consumer.service,
                partition=consumer.partition,
                read_to=record.read_to,
                open=len(record.open),
            )
        for name in (consumer.reader, consumer.name):
            await _delete(self._bus, name)

    async def _first_checkpoint(self, consumer: Former, rows: Mapping[str, Row]) -> Checkpoint:
        opened = {}
        for tenant, row in rows.items():
            if row.behind:
                replays = await self._is_replayed(consumer.service, tenant)
                opened[tenant] = sidelined(row, replays=replays)
        read_to = max(consumer.settled, *(row.next - 1 for row in rows.values()), 0)
        if read_to > consumer.settled:  # some tenants are ahead of the others: note all of these
            found = read(
                self._bus,
                JOURNAL,
                f"journal.{consumer.partition}.>",
                first=consumer.settled + 1,
                headers_only=True,
            )
            async with aclosing(found) as messages:
                async for message in messages:
                    if message.seq > read_to:
                        break
                    note_unsettled(opened, consumer, rows, message.subject, message.seq)
        return Checkpoint(
            version=consumer.version,
            names=consumer.names,
            unordered=consumer.unordered,
            read_to=read_to,
            open=opened,
        )

    async def _is_replayed(self, service: str, tenant: str) -> bool:
        entry = await Bucket(self._bus, "replays", Replay).get(f"{service}.{tenant}")
        if entry is None or entry.value.state not in UNDER_WAY:
            return False
        return entry.value.state != "ready" or entry.value.swap or entry.value.cancel

    async def _clean(self, rows: Rows) -> None:
        """Rewrite the rows of partitions that have a checkpoint: it says all the rest."""
        there: dict[str, bool] = {}
        for (service, tenant), (row, revision) in rows.items():
            partition = f"{service}.{subjects.partition(tenant)}"
            if partition not in there:
                there[partition] = await self._checkpoints.get(partition) is not None
            if not there[partition]:
                continue
            key, cursor = f"{service}.{tenant}", row.cursor
            with contextlib.suppress(Conflict):  # somebody has rewritten it
                if cursor == Cursor():
                    await self._cursors.delete(key, revision)
                else:
                    await self._cursors.update(key, cursor, revision)


def sidelined(row: Row, *, replays: bool) -> Open:
    """Where a tenant stands that was read apart."""
    if not row.failed and not row.retry_at:
        return Open(next=row.next, why="replay" if replays else "backlog")
    return Open(
        next=row.next,
        why="failed",
        failed=row.failed,
        first_failed=row.first_failed,
        retry_at=row.retry_at,
        code=row.code,
    )


def note_unsettled(
    opened: dict[str, Open], consumer: Former, rows: Mapping[str, Row], subject: str, seq: int
) -> None:
    """Note a message that neither the consumer nor its tenant's row knows to be settled."""
    _, _, tenant, name = subject.split(".", 3)
    if name not in consumer.names:
        return
    if seq > consumer.unordered.get(name, seq):
        single = len(opened) < _SINGLES
        opened.setdefault(f"{tenant}#{seq}" if single else f"{tenant}#", Open(next=seq))
    elif tenant not in rows or seq >= rows[tenant].next:
        opened.setdefault(tenant, Open(next=seq))


async def formers(bus: Bus) -> list[Former]:
    """The consumers of the version before that the journal still has."""
    found: list[dict[str, Any]] = []
    while True:
        page = await api(bus, f"CONSUMER.LIST.{JOURNAL}", {"offset": len(found)})
        found += page.get("consumers") or []
        if len(found) >= page["total"] or not page.get("consumers"):
            return [each for info in found if (each := former(info)) is not None]


async def _old_rows(bus: Bus) -> Rows:
    found = {}
    async for each in scan(bus, "KV_cursors", "$KV.cursors.*.*"):
        _, _, service, tenant = each.subject.split(".")
        with contextlib.suppress(msgspec.MsgspecError):
            if not is_marker(each.headers) and (row := _decode(each.data)).is_old:
                found[service, tenant] = (row, each.seq)
    return found


async def _delete(bus: Bus, consumer: str) -> None:
    try:
        await api(bus, f"CONSUMER.DELETE.{JOURNAL}.{consumer}")
    except JetStreamError as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
