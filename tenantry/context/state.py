"""What a service keeps for a tenant: small values in the KV bucket `state`, one namespace each.

Each value carries how far its tenant's messages had come when it was written (`Tenant-Fence`), and
each write is a compare-and-set. So a message that comes too late, because its replica slept through
the loss of its lane, can't change what a later one has written: see docs/decisions/0014-fences.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from tenantry.bus import Bucket, Bus, Entry
from tenantry.bus.kv import Record
from tenantry.bus.reading import read
from tenantry.context.turn import Turn, free
from tenantry.errors import BadMessage, Conflict, Superseded, from_inside
from tenantry.wire import headers

T = TypeVar("T")

BUCKET = "state"
_NAME = re.compile(r"[A-Za-z0-9_=-]+(?:\.[A-Za-z0-9_=-]+)*", re.ASCII)
_TRIES = 20


class State:
    """The values of one service for one tenant.

    Keys are `<tenant>.<service>.<name>`; those of a namespace that a recovery has filled are
    `<tenant>.<service>./<generation>.<name>`: the service is a token of its own in both, which
    permissions can name.
    """

    __slots__ = ("_bucket", "_check", "_fence", "_prefix", "_seen")

    def __init__(
        self,
        bus: Bus,
        tenant: str,
        service: str,
        turn: Turn | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        turn = turn or free()
        self._bucket: Bucket[msgspec.Raw] = Bucket(bus, BUCKET, msgspec.Raw)
        self._prefix = prefix(tenant, service, turn.generation)
        self._fence = turn.fence
        self._check = check
        self._seen: dict[str, tuple[int, int]] = {}
        """Revision and fence of what was last read, by key."""

    async def get(self, name: str, type: type[T]) -> Entry[T] | None:  # noqa: A002
        """The value of `name` and its revision, or None."""
        record = await self._read(self._key(name))
        if record is None or record.deleted:
            return None
        return Entry(msgspec.json.decode(record.body, type=type), record.revision)

    async def put(self, name: str, value: Any) -> int:
        """Write, whatever is there; returns the new revision."""
        key, body = self._key(name), msgspec.json.encode(value)
        for _ in range(_TRIES):
            if key not in self._seen:
                await self._read(key)
            try:
                return await self._write(key, body)
            except Conflict:
                continue
        raise _conflict(f"{name} changes all the time")

    async def create(self, name: str, value: Any) -> int:
        """Write a name that must not exist; raises :class:`~tenantry.errors.Conflict`."""
        key = self._key(name)
        record = await self._read(key)
        if record is not None and not record.deleted:
            raise _conflict(f"{name} exists already")
        return await self._write(key, msgspec.json.encode(value))

    async def update(self, name: str, value: Any, revision: int) -> int:
        """Write over exactly `revision`; raises :class:`~tenantry.errors.Conflict`."""
        key = self._key(name)
        if self._seen.get(key, (0, 0))[0] != revision:
            record = await self._read(key)
            if record is None or record.revision != revision:
                raise _conflict(f"{name} has changed meanwhile")
        return await self._write(key, msgspec.json.encode(value))

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
        raise _conflict(f"{name} changes all the time")

    async def names(self) -> list[str]:
        """All names that have a value, sorted."""
        self._check()
        with from_inside():
            keys = await keys_of(self._bucket.bus, self._prefix)
            records = {key: await self._bucket.read(key) for key in keys}
        live = [key for key, record in records.items() if record is not None and not record.deleted]
        return sorted(key.removeprefix(self._prefix) for key in live)

    async def clear(self) -> None:
        """Delete everything: what a service's reset hook does."""
        for name in await self.names():
            await self.delete(name)

    # --- inside --------------------------------------------------------------------------------

    async def _read(self, key: str) -> Record | None:
        """What lies there; raises :class:`Superseded` where a later message has written it."""
        self._check()
        with from_inside():
            record = await self._bucket.read(key)
        there = _fence(record)
        if self._fence is not None and there > self._fence:
            with from_inside():
                raise Superseded("a later message of this tenant has been handled already")
        self._seen[key] = (record.revision if record is not None else 0, there)
        return record

    async def _write(self, key: str, body: bytes | None) -> int:
        """Write over what was last read; None deletes. Raises :class:`Conflict`."""
        self._check()
        revision, there = self._seen.pop(key)
        # Who has no place in the order keeps the fence that is there.
        fence = max(self._fence or 0, there)
        fields = {headers.FENCE: str(fence)} if fence else {}
        with from_inside():
            if body is None:
                written = await self._bucket.delete(key, revision, fields)
            else:
                written = await self._bucket.write(key, body, revision, fields)
        self._seen[key] = (written, fence)
        return written

    def _key(self, name: str) -> str:
        if _NAME.fullmatch(name) is None or len(name) > 200:
            raise BadMessage(
                f"{name[:80]!r} can't name a state", hint="use letters, digits, '_', '-', '=', '.'"
            )
        return self._prefix + name


def prefix(tenant: str, service: str, generation: int = 0) -> str:
    """What the keys of a namespace begin with; no name of a value contains a slash."""
    return f"{tenant}.{service}./{generation}." if generation else f"{tenant}.{service}."


async def keys_of(bus: Bus, begin: str) -> list[str]:
    """The keys of the namespace that begin so, deleted ones too."""
    subject = f"$KV.{BUCKET}."
    found: dict[str, None] = {}
    async for each in read(bus, f"KV_{BUCKET}", f"{subject}{begin}>", headers_only=True):
        key = each.subject.removeprefix(subject)
        if not key.startswith("/", len(begin)):  # that is another namespace
            found[key] = None
    return list(found)


def _conflict(text: str) -> Conflict:
    """For the handler, not for whoever asked it."""
    error = Conflict(text)
    error.inside = True
    return error


def _fence(record: Record | None) -> int:
    if record is None:
        return 0
    try:
        return int(record.headers.get(headers.FENCE, "0"))
    except ValueError:
        return 0
