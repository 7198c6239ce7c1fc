"""Asking for a replay or a recovery, and seeing what becomes of it.

The service itself carries it out, in the instance that owns the tenant's partition: this writes
into its row what is wanted, and reads there how far it has come.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, cast

import msgspec

from tenantry import catalogue, rows, subjects
from tenantry.bus import Bucket, Bus, Table, api
from tenantry.bus.scan import find, find_next, scan
from tenantry.context.state import BUCKET as STATE
from tenantry.context.state import keys_of, prefix, redo_key
from tenantry.errors import BadMessage, Conflict, DeadlineExceeded, NotFound, Unavailable
from tenantry.messages import UNDER_WAY, Cursor, Declaration, Replay
from tenantry.streams import JOURNAL
from tenantry.wire import headers

_POLL = 0.2


class Count(NamedTuple):
    """How many messages of one action a replay would have handled again."""

    action: str
    messages: int
    replayable: bool


class Difference(NamedTuple):
    """One value that two namespaces of a state do not share; None where it does not exist."""

    name: str
    before: bytes | None
    after: bytes | None


class Replays:
    """The replays of all tenants and services, with the credentials of the role `control`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    # --- asking --------------------------------------------------------------------------------

    async def ask(
        self,
        tenant: str,
        service: str,
        *,
        by: str,
        since: int = 0,
        until: int = 0,
        actions: Sequence[str] = (),
        skip: Sequence[int] = (),
        rate: float = 0.0,
        reset: bool | None = None,
        recovery: bool = False,
    ) -> Replay:
        """Ask for one; the service begins as soon as it sees this.

        `since` and `until` (not included) are sequences of the journal, 0 for its ends; `reset`
        defaults to a replay from the start of a service that has a hook for it. Raises
        :class:`Conflict` where one runs, :class:`NotFound` for a service that is not known,
        :class:`BadMessage` for what it can't do, :class:`BadSubject` for what is no tenant's id.
        """
        declared = await self.check(
            tenant, service, since=since, until=until, actions=actions, skip=skip, reset=reset
        )
        if reset is None:
            reset = declared.resets and not since
        last = await self.get(tenant, service)
        if last is not None and last.state not in UNDER_WAY:
            # Nobody else may have: it can have ended after who asked for it had gone. Once its row
            # is written over nothing tells of it, and a later recovery might take the same one.
            await self.forget(tenant, service, last.generation)
        wanted = Replay(
            id=f"{int(time.time()):x}-{secrets.token_hex(3)}",
            tenant=tenant,
            service=service,
            by=by,
            asked=time.time(),
            since=since,
            until=until,
            actions=tuple(actions),
            skip=tuple(skip),
            rate=rate,
            reset=bool(reset) and not recovery,
            generation=await self._free_generation(tenant, service) if recovery else None,
        )

        def write(row: Replay | None) -> Replay | None:
            if row is not None and row.state in UNDER_WAY:
                raise Conflict(
                    f"{service} has a replay of {tenant} under way: {row.id} by {row.by or '?'}, "
                    f"{row.state}",
                    hint="one at a time: `tenantry replay follow` it, or `cancel` it",
                )
            return wanted

        await self._rows(service).change(tenant, write)
        return wanted

    async def check(
        self,
        tenant: str,
        service: str,
        *,
        since: int = 0,
        until: int = 0,
        actions: Sequence[str] = (),
        skip: Sequence[int] = (),
        reset: bool | None = None,
    ) -> Declaration:
        """What the service declares; raises as :meth:`ask` does, and asks for nothing."""
        subjects.check_tenant(tenant)
        declared = await self.declaration(service)
        if not declared.replays:
            raise BadMessage(
                f"{service} {declared.version} declares nothing replayable",
                hint="an author writes `replayable=True` where a handler may run again",
            )
        if unknown := sorted(set(actions) - set(declared.replays)):
            raise BadMessage(
                f"{service} can't replay {', '.join(unknown)}",
                hint=f"it declares replayable: {', '.join(declared.replays)}",
            )
        if until and until <= max(since, 1):
            raise BadMessage(f"from {since} until {until} there is nothing")
        end = await self.end()
        if since >= end:
            raise BadMessage(f"the journal ends at {end - 1}: from {since} on there is nothing")
        if until > end:
            raise BadMessage(
                f"the journal ends at {end - 1}: it has not come to {until} yet",
                hint="see `tenantry journal TENANT --last 1` for where it is",
            )
        for seq in skip:
            found = await find(self._bus, JOURNAL, seq)
            if found is None or subjects.parse_stored(found.subject).tenant != tenant:
                raise BadMessage(
                    f"the journal has no message of {tenant} at {seq}, so none can be left out",
                    hint=f"`tenantry journal {tenant}` shows the sequences",
                )
        if reset and not declared.resets:
            raise BadMessage(
                f"{service} {declared.version} has no reset hook", hint="declare one, or leave it"
            )
        return declared

    async def runs(self, service: str) -> bool:
        """Whether any replica of a service answers now."""
        try:
            await self._bus.call(f"$SRV.PING.{service}", timeout=3.0)
        except (Unavailable, DeadlineExceeded):
            return False
        return True

    async def cancel(self, tenant: str, service: str) -> Replay:
        """Ask for its end; what it has done stays done. Raises :class:`NotFound`.

        One that no replica has begun ends at once.
        """

        def change(row: Replay) -> Replay:
            if row.state == "asked":
                return msgspec.structs.replace(row, state="cancelled", ended=time.time())
            return msgspec.structs.replace(row, cancel=True)

        return await self._amend(tenant, service, change)

    async def swap(self, tenant: str, service: str) -> Replay:
        """Confirm a recovery: what it has filled becomes the live state."""
        return await self._amend(
            tenant, service, lambda row: msgspec.structs.replace(row, swap=True)
        )

    async def back(self, tenant: str, service: str) -> Cursor:
        """Go back to the state before the last recovery. Raises :class:`NotFound`."""

        def change(row: Cursor) -> Cursor:
            if row.former is None:
                raise NotFound(f"{service} has no former state of {tenant} to go back to")
            return msgspec.structs.replace(
                row, generation=row.former, former=row.generation, epoch=row.epoch + 1
            )

        return await rows.cursors(self._bus, service).change(tenant, change)

    async def _amend(self, tenant: str, service: str, change: Callable[[Replay], Replay]) -> Replay:
        def checked(row: Replay | None) -> Replay | None:
            if row is None or row.state not in UNDER_WAY:
                raise NotFound(f"{service} has no replay of {tenant} under way")
            return change(row)

        return cast("Replay", await self._rows(service).change(tenant, checked))

    # --- seeing --------------------------------------------------------------------------------

    async def get(self, tenant: str, service: str) -> Replay | None:
        """The last replay of a tenant in a service."""
        entry = await self._bucket().get(f"{service}.{tenant}")
        return entry.value if entry is not None else None

    async def all(self) -> list[Replay]:
        """The last replay of each tenant and service, the latest first."""
        table = Table(self._bucket())
        await table.start()
        await table.stop()
        return sorted(table.rows.values(), key=lambda each: -each.asked)

    async def follow(self, asked: Replay, until: frozenset[str]) -> AsyncIterator[Replay]:
        """Yield it as it goes on, until its state is one of `until` or it has ended."""
        while True:
            now = await self.get(asked.tenant, asked.service)
            if now is None or now.id != asked.id:
                raise NotFound(f"the replay {asked.id} is not the last one any more")
            yield now
            if now.state in until or now.state not in UNDER_WAY:
                return
            await asyncio.sleep(_POLL)

    async def declaration(self, service: str) -> Declaration:
        """The newest version of a service that the catalogue knows. Raises :class:`NotFound`."""
        return await catalogue.newest(self._bus, service)

    async def recoverable(self) -> list[str]:
        """The services that declare something replayable, sorted."""
        newest = {each.service: each for each in await catalogue.declarations(self._bus)}
        return [name for name, each in newest.items() if each.replays]

    # --- the journal and the state -------------------------------------------------------------

    async def at(self, when: float) -> int:
        """The first sequence that was stored at or after a time, or the one that comes next."""
        found = await find_next(self._bus, JOURNAL, "journal.>", at=when)
        return found.seq if found is not None else await self.end()

    async def end(self) -> int:
        """The sequence that the next message will get."""
        info = await api(self._bus, f"STREAM.INFO.{JOURNAL}")
        return int(info["state"]["last_seq"]) + 1

    async def begins(self, tenant: str) -> float | None:
        """When the oldest message of a tenant was stored that the journal still has."""
        first = await find_next(self._bus, JOURNAL, subjects.stored_of(tenant))
        return first.time if first is not None else None

    async def count(
        self,
        tenant: str,
        service: str,
        *,
        since: int = 0,
        until: int = 0,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Count]:
        """What a replay of this range would look at, by action."""
        declared = await self.declaration(service)
        own = {f"{service}.{each.name}" for each in declared.actions if each.kind == "command"}
        names = {*own, *declared.follows}
        counts = dict.fromkeys(sorted(names), 0)
        seen = 0
        async for message in scan(
            self._bus, JOURNAL, subjects.stored_of(tenant), first=max(since, 1)
        ):
            if until and message.seq >= until:
                break
            seen += 1
            progress(seen)
            name = message.subject.split(".", 3)[3]
            only = message.headers.get(headers.ONLY, headers.HISTORY).removeprefix(headers.HISTORY)
            if name in counts and only in ("", service):
                counts[name] += 1
        return [
            Count(name, messages, name in declared.replays) for name, messages in counts.items()
        ]

    async def differences(self, replay: Replay) -> list[Difference]:
        """What a recovery has filled differently from the live state, by name."""
        live = await self._values(replay, await self._live(replay.tenant, replay.service))
        filled = await self._values(replay, replay.generation or 0)
        names = sorted(live.keys() | filled.keys())
        every = (Difference(name, live.get(name), filled.get(name)) for name in names)
        return [each for each in every if each.before != each.after]

    async def forget(self, tenant: str, service: str, generation: int | None) -> None:
        """Delete a namespace that is neither live nor the one to go back to; else do nothing."""
        row = await self.cursor(tenant, service)
        if generation is None or generation in (row.generation, row.former):
            return
        begin = prefix(tenant, service, generation)
        # What a service has had from the beginning is what the others begin with, too.
        wanted = [f"{begin}>"]
        if not generation:
            wanted = [*await keys_of(self._bus, begin), redo_key(tenant, service, 0)]
        for key in wanted:
            await api(self._bus, f"STREAM.PURGE.KV_{STATE}", {"filter": f"$KV.{STATE}.{key}"})

    async def _values(self, replay: Replay, generation: int) -> dict[str, bytes]:
        begin = prefix(replay.tenant, replay.service, generation)
        bucket = Bucket(self._bus, STATE, msgspec.Raw)
        values = {}
        for key in await keys_of(self._bus, begin):
            record = await bucket.read(key)
            if record is not None and not record.deleted:
                values[key.removeprefix(begin)] = record.body
        return values

    async def _live(self, tenant: str, service: str) -> int:
        return (await self.cursor(tenant, service)).generation

    async def cursor(self, tenant: str, service: str) -> Cursor:
        """Which state of a tenant is live in a service."""
        entry = await Bucket(self._bus, "cursors", Cursor).get(f"{service}.{tenant}")
        return entry.value if entry is not None else Cursor()

    async def _free_generation(self, tenant: str, service: str) -> int:
        """A namespace that nothing was ever written to, or nothing is kept of."""
        row, last = await self.cursor(tenant, service), await self.get(tenant, service)
        used = (row.generation, row.former or 0, (last.generation or 0) if last else 0)
        return max(used) + 1

    def _rows(self, service: str) -> rows.Rows[Replay | None]:
        return rows.replays(self._bus, service)

    def _bucket(self) -> Bucket[Replay]:
        return Bucket(self._bus, "replays", Replay)
