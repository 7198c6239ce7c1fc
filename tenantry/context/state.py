"""State that a service keeps for a tenant: small values in the KV bucket `state`.

Each value carries the fence of the message that wrote it (`Tenant-Fence`), and each write is a
compare-and-set. A message that comes too late can't change what a later one has written: see
docs/decisions/0014-fences.md. Stored messages stage their writes: see `staged.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import msgspec

from tenantry.bus import Bucket, Bus, Entry
from tenantry.bus.kv import Record
from tenantry.bus.reading import read
from tenantry.context import latest
from tenantry.context.fence import Fence, free
from tenantry.context.latest import Latest, Seen
from tenantry.errors import BadMessage, Conflict, Repeated, Superseded, Unavailable, from_inside
from tenantry.wire import codec, headers

T = TypeVar("T")

BUCKET = latest.BUCKET
_NAME = re.compile(r"[A-Za-z0-9_=-]+(?:\.[A-Za-z0-9_=-]+)*", re.ASCII)
_TRIES = 20
_PAUSE = 0.02
_REDO = "/redo"
_NOTHING: Mapping[str, Record | None] = MappingProxyType({})


class Write(NamedTuple):
    """One staged write of a stored message."""

    key: str
    body: bytes | None
    """The new value, JSON; None deletes."""
    seen: Seen | None
    """The key as this message first saw it; None where it never looked."""
    read: bool
    """Whether the handler knows what it writes over: then that must not have changed."""


class State:
    """The values of one service for one tenant.

    A stored message's writes are staged: they count together once its handler has succeeded, and
    the handler itself sees them at once. A request's writes are made at once.

    Keys are `<tenant>.<service>.<name>`; those of a namespace that a recovery has filled are
    `<tenant>.<service>./<generation>.<name>`: the service is a token of its own in both, which
    permissions can name.
    """

    __slots__ = ("_bucket", "_check", "_fence", "_late", "_prefix", "_seen")

    def __init__(
        self,
        bus: Bus,
        tenant: str,
        service: str,
        fence: Fence | None = None,
        check: Callable[[], None] | None = None,
        bucket: Latest | None = None,
    ) -> None:
        self._fence = fence or free()
        self._bucket = bucket or Latest(bus)
        self._prefix = prefix(tenant, service, self._fence.generation)
        self._check = check or self._fence.check
        self._seen: dict[str, Seen] = {}
        """Each key as it was last seen."""
        self._late: Superseded | None = None

    async def get(self, name: str, type: type[T]) -> Entry[T] | None:  # noqa: A002
        """The value of `name` and its revision, or None."""
        record = await self._read(self._key(name))
        if record is None or record.deleted:
            return None
        return Entry(msgspec.json.decode(record.body, type=type), record.revision)

    async def put(self, name: str, value: Any) -> int:
        """Write, whatever is there.

        Returns the new revision. For a stored message that is the revision that it will replace,
        or 0 where the message has not read the name: good for :meth:`update` in the same message.
        """
        key, body = self._key(name), codec.encode(value)
        for _ in range(_TRIES):
            if key not in self._seen:
                await self._read(key)
            try:
                return await self._write(key, body)
            except Conflict:
                continue
        raise conflict(f"{name} changes all the time")

    async def create(self, name: str, value: Any) -> int:
        """Write a name that must not exist; raises :class:`~tenantry.errors.Conflict`.

        Returns what :meth:`put` returns.
        """
        key = self._key(name)
        record = await self._read(key)
        if record is not None and not record.deleted:
            raise conflict(f"{name} exists already")
        return await self._write(key, codec.encode(value))

    async def update(self, name: str, value: Any, revision: int) -> int:
        """Write over exactly `revision`; raises :class:`~tenantry.errors.Conflict`.

        Returns what :meth:`put` returns.
        """
        key = self._key(name)
        await self._reach(name, revision)
        return await self._write(key, codec.encode(value))

    async def delete(self, name: str) -> None:
        """Delete; a name that does not exist is no error."""
        key = self._key(name)
        for _ in range(_TRIES):
            record = await self._read(key)
            if record is None or record.deleted:
                return
            try:
                await self._write(key, None)
            except Conflict:
                continue
            return
        raise conflict(f"{name} changes all the time")

    async def names(self) -> list[str]:
        """All names that have a value, sorted."""
        self._check()
        with from_inside():
            newest = await self._barrier()
            records: dict[str, Record | None] = {}
            listed = await _listed(self._bucket.bus, self._prefix, newest)
            for key, record in listed.items():
                old = record.revision < self._bucket.least(key)
                records[key] = await self._bucket.read(key) if old else record
        for key, found in records.items():
            self._note(key, found)
        live = [key for key, found in records.items() if found is not None and not found.deleted]
        return sorted(key.removeprefix(self._prefix) for key in live)

    async def clear(self) -> None:
        """Delete everything: what a service's reset hook does."""
        for name in await self.names():
            await self.delete(name)

    # --- for the runtime -----------------------------------------------------------------------

    def staged(self) -> tuple[Write, ...]:
        """The writes that are still to be made; none where each was made at once.

        Raises :class:`Superseded` where a read has shown that the message comes too late, although
        the handler went on.
        """
        return ()

    def looked(self) -> Mapping[str, Record | None]:
        """What each key held when this message first looked at it; nothing for a request."""
        return _NOTHING

    # --- inside --------------------------------------------------------------------------------

    async def _read(self, key: str) -> Record | None:
        """Read a key; raises :class:`Superseded` where a later message has written it."""
        self._check()
        with from_inside():
            record = await self._bucket.read(key)
        self._note(key, record)
        return record

    async def _reach(self, name: str, revision: int) -> None:
        """Raise :class:`Conflict` unless the name has this revision now, or had when last seen."""
        key = self._key(name)
        seen = self._seen.get(key)
        if not revision or seen is None or seen.revision != revision:
            record = await self._read(key)
            if record is None or record.revision != revision:
                raise conflict(f"{name} has changed meanwhile")

    async def _barrier(self) -> int:
        """The revision that a list of the keys has to reach, so that nothing is missing in it.

        Of a former owner nothing is once this owner has written something: the redo record, as it
        is.
        """
        service, claim = self._prefix.split(".")[1], self._fence.claim
        if claim is None or not await self._bucket.is_replicated(service):
            return 0
        redo = self._prefix + _REDO
        if not self._bucket.is_proven(redo, 1 << 63, claim):
            await self._bucket.current(redo, service, claim)
        return self._bucket.newest(self._prefix)

    def _note(self, key: str, record: Record | None) -> None:
        """Remember what was seen; raises :class:`Superseded` where this message comes too late."""
        seen, own = Seen.of(record), self._fence.value
        if own is not None:
            if seen.fence > own:
                self._late = late()
            elif seen.fence == own and self._fence.is_staged:
                self._late = Repeated("this message has been committed already")
            if self._late is not None:
                self._late.inside = True
                raise self._late
        self._seen[key] = seen

    async def _write(self, key: str, body: bytes | None) -> int:
        """Write at once over what was last seen; None deletes. Raises :class:`Conflict`."""
        self._check()
        await self._fence.ours()
        seen = self._seen.pop(key)
        # Without a place in the order, a write keeps the fence that is there.
        fence = max(self._fence.value or 0, seen.fence)
        with from_inside():
            revision = await write(self._bucket, key, body, seen.revision, fence)
        self._seen[key] = Seen(revision, fence, exists=body is not None)
        return revision

    def _key(self, name: str) -> str:
        if _NAME.fullmatch(name) is None or len(name) > 200:
            raise BadMessage(
                f"{name[:80]!r} can't name a state", hint="use letters, digits, '_', '-', '=', '.'"
            )
        return self._prefix + name


def prefix(tenant: str, service: str, generation: int = 0) -> str:
    """The beginning of all keys of a namespace; no name of a value contains a slash."""
    return f"{tenant}.{service}./{generation}." if generation else f"{tenant}.{service}."


def redo_key(tenant: str, service: str, generation: int = 0) -> str:
    """The key of a namespace's redo record; no value can have this name."""
    return prefix(tenant, service, generation) + _REDO


async def keys_of(bus: Bus, begin: str) -> list[str]:
    """The keys of the namespace that begin so, deleted ones too; without its redo record."""
    return list(await _listed(bus, begin, 0))


async def _listed(bus: Bus, begin: str, newest: int) -> dict[str, Record]:
    """The same with their records, without bodies, by a replica that has reached `newest`.

    Raises :class:`Unavailable` where none has.
    """
    subject = f"$KV.{BUCKET}."
    for tried in range(_TRIES):
        found: dict[str, Record] = {}
        last = 0
        async for each in read(bus, f"KV_{BUCKET}", f"{subject}{begin}>", headers_only=True):
            last = each.seq
            key = each.subject.removeprefix(subject)
            if not key.startswith("/", len(begin)):  # another namespace, or the redo record
                found[key] = Record(b"", last, dict(each.headers))
        if last >= newest:
            return found
        await asyncio.sleep(tried * _PAUSE)
    raise Unavailable(f"the keys of {begin} can't be listed: replicas of the bucket lag behind")


async def write(
    bucket: Bucket[msgspec.Raw], key: str, body: bytes | None, revision: int, fence: int
) -> int:
    """Write over exactly `revision` under a fence, None deletes; raises :class:`Conflict`."""
    fields = {headers.FENCE: str(fence)} if fence else {}
    if body is None:
        return await bucket.delete(key, revision, fields)
    return await bucket.write(key, body, revision, fields)


def conflict(text: str) -> Conflict:
    """A conflict for the handler, not for whoever asked it."""
    error = Conflict(text)
    error.inside = True
    return error


def late() -> Superseded:
    """The error of a message that comes after a later one has been settled."""
    return Superseded("a later message of this tenant has been handled already")
