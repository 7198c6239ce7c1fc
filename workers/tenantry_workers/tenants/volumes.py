"""Counting what the journal holds of tenants whose plan bounds it, in bytes.

One replica reads the journal's headers, from where the last one ended. Each row says how far it is
counted, so that nothing counts twice, whatever is killed in between. While no plan bounds any
tenant, nothing is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing

import msgspec
import structlog

from tenantry import clock, subjects, tasks
from tenantry.bus import Bucket, Bus, Table
from tenantry.bus.jetstream import StoredMessage, api
from tenantry.bus.reading import read
from tenantry.context.token import SKEW
from tenantry.messages import (
    Plan,
    QuotaExhausted,
    QuotaWarned,
    Tenant,
    Volume,
    VolumeProgress,
)
from tenantry.plans import limits_of
from tenantry.streams import JOURNAL
from tenantry.volumes import (
    BUCKET,
    NAME,
    PROGRESS,
    Piece,
    counted,
    gone,
    stored_size,
    total,
)
from tenantry.wire import headers, trace
from tenantry_workers.tenants.publisher import EventPublisher

_PAUSE = 0.5
_BEAT = 1.0
_PATIENCE = 5.0
"""Seconds after which another replica takes over."""

_AT_ONCE = 5_000
_SIZE = "Nats-Msg-Size"
_LEVELS = ("", "warned", "exhausted")

log = structlog.get_logger("tenantry.tenants")


class VolumeCount:
    """Keeps the bucket `volumes`, and tells tenants at 80 % and 100 % of their bytes."""

    def __init__(
        self,
        bus: Bus,
        events: EventPublisher,
        tenants: Table[Tenant],
        plans: Table[Plan],
        *,
        overridden: Mapping[str, Tenant],
        instance: str,
        max_age: float = 0.0,
    ) -> None:
        self._bus = bus
        self._events = events
        self._tenants = tenants
        self._plans = plans
        self._overridden = overridden
        """The tenants that have limits of their own."""
        self._instance = instance
        self._max_age = max_age
        self._bucket = Bucket(bus, BUCKET, Volume)
        self._rows = Table(self._bucket, filter="*")
        self._place = Bucket(bus, BUCKET, VolumeProgress)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Go on where the last one ended."""
        await self._rows.start()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop; another replica, or the next start, goes on."""
        await tasks.end(self._task)
        await self._rows.stop()

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
            except Exception as error:  # noqa: BLE001  (a count that ends would never be missed)
                log.warning("the journal's bytes are not counted", why=str(error))
            await asyncio.sleep(_PAUSE)

    async def _round(self) -> None:
        bounds = self._bounds()
        for name in self._rows.rows.keys() - bounds.keys():
            self._rows.wrote(name, None, await self._bucket.delete(name))
        if not bounds or (place := await self._claim()) is None:
            return
        at, end = clock.now(), await self._end()
        if not self._rows.rows:
            place = msgspec.structs.replace(place, seq=max(place.seq, end))
        for name in sorted(bounds.keys() - self._rows.rows.keys()):
            await self._begin(name, bounds[name], place.seq)
        begun = place.seq
        while place.seq < end:
            place = await self._batch(place, end, bounds)
            await self._write(place)
        if begun != end or not 0 <= at - place.seen <= _BEAT:
            await self._write(msgspec.structs.replace(place, at=at))

    def _bounds(self) -> dict[str, int]:
        """The bytes that are allowed, of tenants for which there is a bound."""
        now, rows = clock.now(), self._tenants.rows
        bounded = any(plan.journal_bytes for plan in self._plans.rows.values())
        return {
            tenant.id: plan.journal_bytes
            for tenant in (rows if bounded else self._overridden).values()
            if tenant.state != "deleted"
            and (plan := limits_of(tenant, self._plans.rows, now)) is not None
            and plan.journal_bytes
        }

    # --- who counts ----------------------------------------------------------------------------

    async def _claim(self) -> VolumeProgress | None:
        """Where to go on, None where another one does."""
        entry = await self._place.get(PROGRESS)
        if entry is None:
            fresh = VolumeProgress(seq=await self._end(), owner=self._instance)
            await self._place.put(PROGRESS, fresh)
            return fresh
        place = entry.value
        # One that has said so long after now had a clock that was wrong: it counts as silent.
        age = clock.now() - place.seen
        if place.owner != self._instance and -SKEW < age < _PATIENCE:
            return None
        return msgspec.structs.replace(place, owner=self._instance)

    async def _write(self, place: VolumeProgress) -> None:
        seen = round(clock.now(), 3)
        await self._place.put(PROGRESS, msgspec.structs.replace(place, seen=seen))

    async def _end(self) -> int:
        return int((await api(self._bus, f"STREAM.INFO.{JOURNAL}"))["state"]["last_seq"])

    # --- counting ------------------------------------------------------------------------------

    async def _begin(self, name: str, bound: int, place: int) -> None:
        """Count all that there is of one tenant, up to `place` at least."""
        volume, pieces = Volume(), list[Piece]()
        found = read(self._bus, JOURNAL, subjects.stored_of(name), headers_only=True)
        async with aclosing(found) as messages:
            async for message in messages:
                pieces.append(self._piece(message))
                if len(pieces) >= _AT_ONCE:
                    volume, pieces = counted(volume, pieces, message.seq, clock.now()), []
        last = max([place, *(piece.seq for piece in pieces)])
        whole = counted(volume, pieces, last, clock.now())
        await self._change(name, bound, lambda row: row or whole)

    async def _batch(
        self, place: VolumeProgress, end: int, bounds: dict[str, int]
    ) -> VolumeProgress:
        """Count the next messages; what there is of the journal up to `end`, or as many at once."""
        found: dict[str, list[Piece]] = {}
        last, number = place.seq, 0
        stream = read(self._bus, JOURNAL, "journal.>", first=place.seq + 1, headers_only=True)
        async with aclosing(stream) as messages:
            async for message in messages:
                name, last = message.subject.split(".", 3)[2], message.seq
                if name in bounds:
                    found.setdefault(name, []).append(self._piece(message))
                number += 1
                if number >= _AT_ONCE:
                    break
            else:
                last = max(last, end)  # the last ones may be gone already
        for name, pieces in found.items():
            await self._add(name, bounds[name], pieces)
        return msgspec.structs.replace(place, seq=last)

    def _piece(self, message: StoredMessage) -> Piece:
        fields = dict(message.headers)
        body = int(fields.pop(_SIZE, len(message.data)))
        until = gone(message.time, fields.get(headers.TTL), self._max_age)
        return Piece(message.seq, until, stored_size(message.subject, fields, body))

    async def _add(self, name: str, bound: int, pieces: list[Piece]) -> None:
        def change(row: Volume | None) -> Volume | None:
            if row is None:
                return None  # erased meanwhile: all of it is counted anew
            return counted(row, pieces, pieces[-1].seq, clock.now())

        await self._change(name, bound, change)

    async def _change(
        self, name: str, bound: int, change: Callable[[Volume | None], Volume | None]
    ) -> None:
        changed = await self._bucket.change(name, change)
        if changed.value is not None:
            if changed.revision:
                self._rows.wrote(name, changed.value, changed.revision)
            await self._tell(name, bound, changed.value)

    # --- telling -------------------------------------------------------------------------------

    async def _tell(self, name: str, bound: int, row: Volume) -> None:
        used, tenant = total(row, clock.now()), self._tenants.get(name)
        reached = level(used, bound)
        rank = _LEVELS.index(reached) - _LEVELS.index(row.told)
        if tenant is None or (rank <= 0 and (not row.told or used * 10 >= bound * 7)):
            return
        if rank > 0:
            kind = QuotaExhausted if reached == "exhausted" else QuotaWarned
            event = kind(
                tenant=name,
                plan=tenant.plan,
                at=round(clock.now(), 3),
                quota=NAME,
                window="",
                used=used,
                amount=bound,
                limit=bound,
            )
            msg_id = f"{name}.q.{NAME}.{row.seq}.{reached}"
            await self._events.publish(event, msg_id=msg_id, hop=trace.new())

        def told(now: Volume | None) -> Volume | None:
            return msgspec.structs.replace(now, told=reached) if now is not None else None

        await self._bucket.change(name, told)


def level(used: int, bound: int) -> str:
    """What there is to tell; a message that does not fit is not stored, so few reach all of it."""
    if used * 100 >= bound * 99:
        return "exhausted"
    return "warned" if used * 5 >= bound * 4 else ""
