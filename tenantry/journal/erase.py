"""Erasing what the mesh holds of one tenant: for good, and of no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from tenantry import subjects, volumes
from tenantry.bus import Bucket, Bus, api
from tenantry.bus import jetstream as js
from tenantry.bus.kv import is_marker
from tenantry.bus.scan import find_last, scan
from tenantry.errors import Conflict, JetStreamError, NotFound, Unavailable
from tenantry.journal.backup import CHECKPOINTS
from tenantry.journal.in_hand import WorkInHand
from tenantry.messages import Checkpoint, Tenant, Volume
from tenantry.streams import DEAD, JOURNAL, SCHEDULES, TIMERS

_WATCHED = ("KV_replays", "KV_cursors")
_BUCKET = CHECKPOINTS.removeprefix("KV_")
_decode = msgspec.json.Decoder(Checkpoint).decode
_ROUNDS = 5
_PAUSE = 0.3
PATIENCE = 60.0
"""Seconds to wait for the end of what workers have in hand."""

_Place = tuple[str, str, str]
"""Stream, what it holds, and the filter for one tenant."""

NOT_REACHED = (
    "backups and exports",
    "what services keep outside the mesh, in databases of their own",
    "the tenant's record: its id is never given out again",
    "logs and traces, and systems that the tenant's messages were sent on to",
)
"""What erasing leaves alone."""


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased from one stream."""

    stream: str
    what: str
    filter: str
    count: int
    """Messages, places in checkpoints; of a bucket also earlier revisions of its values."""


def _places(tenant: str) -> tuple[_Place, ...]:
    """All places of one tenant. Rows last: services heed them."""
    return (
        (TIMERS, "timers", f"timer.{tenant}.>"),
        (TIMERS, "timers that are due", f"due.{tenant}.>"),
        (SCHEDULES, "commands for later", f"schedule.{tenant}.>"),
        (JOURNAL, "commands and events", subjects.stored_of(tenant)),
        (DEAD, "dead letters", f"dead.{tenant}.>"),
        ("KV_redrives", "marks of redrives that were cut off", f"$KV.redrives.{tenant}.*"),
        ("KV_state", "state of services", f"$KV.state.{tenant}.>"),
        ("KV_usage", "what it used of its quotas", f"$KV.usage.{tenant}"),
        ("KV_replays", "replays", f"$KV.replays.*.{tenant}"),
        ("KV_cursors", "cursors", f"$KV.cursors.*.{tenant}"),
        (
            CHECKPOINTS,
            "places in services' checkpoints",
            f"$KV.{_BUCKET}.*.{subjects.partition(tenant)}",
        ),
    )


async def check_gone(bus: Bus, tenant: str, *, force: bool = False) -> None:
    """Raise :class:`Conflict` for a tenant that is still active, unless `force`."""
    entry = await Bucket(bus, "tenants", Tenant).get(tenant)
    if entry is None and not force:
        raise NotFound(f"no tenant {tenant!r}", hint="--force erases what may be left of it")
    if entry is not None and entry.value.state == "active" and not force:
        raise Conflict(
            f"tenant {tenant} is active",
            hint="suspend or delete it first, or give --force to erase what it has until now",
        )


async def erase(bus: Bus, tenant: str, *, patience: float = PATIENCE) -> list[Erased]:
    """Purge all that the streams hold of `tenant`, and look afterwards that nothing is left.

    What workers have in hand of it ends first: handlers of stored messages are cut off, requests
    are waited for, at most `patience` seconds. So nothing is written afterwards. Raises
    :class:`Unavailable` when something does not end, or new messages come all the time. May be
    repeated at any time.
    """
    places = {
        place: 0
        for place in _places(subjects.check_tenant(tenant))
        if await _is_there(bus, place[0])
    }
    in_hand = WorkInHand(bus, tenant, patience=patience)
    await _clear_all(bus, places, tenant)  # first, so that nobody can begin any of it
    for _ in range(_ROUNDS):
        await in_hand.end()
        await _clear_all(bus, places, tenant)
        await asyncio.sleep(_PAUSE)
        if not [place for place in places if await _holds(bus, place[0], place[2], tenant)]:
            await _count_anew(bus, tenant)
            return [
                Erased(stream=stream, what=what, filter=only, count=count)
                for (stream, what, only), count in places.items()
            ]
    raise Unavailable(
        f"messages of {tenant} still come", hint="stop what sends them, and erase it again"
    )


async def _is_there(bus: Bus, stream: str) -> bool:
    """Tell whether this mesh has a stream; one that it has not holds nothing."""
    try:
        await api(bus, f"STREAM.INFO.{stream}")
    except JetStreamError as error:
        if error.err_code != js.STREAM_NOT_FOUND:
            raise
        return False
    return True


async def _clear_all(bus: Bus, places: dict[_Place, int], tenant: str) -> None:
    """Erase what all places hold of a tenant, and count how much that was."""
    for place in places:
        places[place] += await _clear(bus, place[0], place[2], tenant)


async def _clear(bus: Bus, stream: str, only: str, tenant: str) -> int:
    """Erase what one place holds of a tenant; returns how much that was."""
    if stream == CHECKPOINTS:
        return await _leave_checkpoints(bus, only, tenant)
    if stream in _WATCHED:
        return await _end_rows(bus, stream, only)
    return await _purge(bus, stream, only)


async def _holds(bus: Bus, stream: str, only: str, tenant: str) -> bool:
    """Whether something is left in one place.

    A checkpoint names a tenant also while a handler runs for it, and no longer: that does not count
    as left.
    """
    if stream != CHECKPOINTS:
        return bool(await find_last(bus, stream, only))
    records = [record async for _, record in _checkpoints(bus, only)]
    return any(record.open[name].why for record in records for name in _rows_of(record, tenant))


async def _leave_checkpoints(bus: Bus, only: str, tenant: str) -> int:
    """Take a tenant out of the checkpoints of its partition, those of every service.

    An owner whose checkpoint was changed waits for a retry of none of them any more.
    """
    if not await find_last(bus, CHECKPOINTS, only):
        return 0
    bucket, count = Bucket(bus, _BUCKET, Checkpoint), 0
    for key in [key async for key, record in _checkpoints(bus, only) if _rows_of(record, tenant)]:
        gone: list[str] = []

        def without(record: Checkpoint | None, gone: list[str] = gone) -> Checkpoint | None:
            if record is None:
                return None
            gone[:] = _rows_of(record, tenant)
            kept = {name: row for name, row in record.open.items() if name not in gone}
            return msgspec.structs.replace(record, open=kept)

        await bucket.change(key, without)
        count += len(gone)
    return count


async def _checkpoints(bus: Bus, only: str) -> AsyncIterator[tuple[str, Checkpoint]]:
    """The checkpoints on a filter, by key."""
    async for each in scan(bus, CHECKPOINTS, only):
        if not is_marker(each.headers):
            yield each.subject.removeprefix(f"$KV.{_BUCKET}."), _decode(each.data)


def _rows_of(record: Checkpoint, tenant: str) -> list[str]:
    """The names in `open` that are a tenant's: `<tenant>`, `<tenant>#` and `<tenant>#<seq>`."""
    return [name for name in record.open if name.partition("#")[0] == tenant]


async def _purge(bus: Bus, stream: str, only: str, **bound: int) -> int:
    answer = await api(bus, f"STREAM.PURGE.{stream}", {"filter": only, **bound}, timeout=120)
    return int(answer["purged"])


async def _end_rows(bus: Bus, stream: str, only: str) -> int:
    """Purge rows that workers have in memory: a marker tells them so, a purge would not."""
    if not await find_last(bus, stream, only):
        return 0
    found = [row async for row in scan(bus, stream, only)]
    bucket = Bucket(bus, stream.removeprefix("KV_"), msgspec.Raw)
    ends, marked = dict[str, int](), False
    for subject, row in {row.subject: row for row in found}.items():
        ends[subject] = row.seq
        if not is_marker(row.headers):
            ends[subject] = await bucket.delete(subject.removeprefix(f"$KV.{bucket.name}."))
            marked = True
    if marked:
        await asyncio.sleep(_PAUSE)
    for subject, end in ends.items():
        # Not what was written after the marker: the next round tells of its end, too.
        await _purge(bus, stream, subject, seq=end + 1)
    return len(found)


async def _count_anew(bus: Bus, tenant: str) -> None:
    """Drop what was counted of its journal; the tenants worker counts what there is then."""
    bucket = Bucket(bus, volumes.BUCKET, Volume)
    with contextlib.suppress(Unavailable):  # this mesh has no such bucket
        record = await bucket.read(tenant)
        if record is not None and not record.deleted:
            await bucket.delete(tenant)
