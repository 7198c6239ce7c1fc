"""State of a stored message: its writes are staged and count together with its success."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from tenantry.bus import Bus, Entry
from tenantry.bus.kv import Record
from tenantry.context.fence import Fence
from tenantry.context.latest import Latest, Seen
from tenantry.context.state import State, Write, conflict
from tenantry.wire import codec

T = TypeVar("T")


class StagedState(State):
    """Keeps writes in memory and shows them to the handler over what the bucket has.

    A name that the handler has read is written over only if it is still as it was at the first
    read: else the handler runs again (`tenantry/runtime/commit.py`).
    """

    __slots__ = ("_first", "_looked", "_staged")

    def __init__(
        self,
        bus: Bus,
        tenant: str,
        service: str,
        fence: Fence,
        check: Callable[[], None] | None = None,
        bucket: Latest | None = None,
    ) -> None:
        super().__init__(bus, tenant, service, fence, check, bucket)
        self._first: dict[str, Seen] = {}
        """Each key as the handler has first read it."""
        self._looked: dict[str, Record | None] = {}
        """The record of each key when it was first looked at, for whatever reason."""
        self._staged: dict[str, Write] = {}

    async def get(self, name: str, type: type[T]) -> Entry[T] | None:  # noqa: A002
        """The value of `name` as this message has left it, and its revision, or None."""
        staged = self._staged.get(self._key(name))
        if staged is None:
            return await super().get(name, type)
        self._check()
        if staged.body is None:
            return None
        return Entry(msgspec.json.decode(staged.body, type=type), _revision(staged))

    async def put(self, name: str, value: Any) -> int:
        """Stage a write, whatever is there."""
        self._check()
        return self._stage(self._key(name), codec.encode(value))

    async def create(self, name: str, value: Any) -> int:
        """Stage a write of a name that must not exist; raises :class:`Conflict`."""
        key = self._key(name)
        staged = self._staged.get(key)
        if staged is None:
            record = await self._read(key)
            exists = record is not None and not record.deleted
        else:
            self._check()
            exists = staged.body is not None
        if exists:
            raise conflict(f"{name} exists already")
        return self._stage(key, codec.encode(value))

    async def update(self, name: str, value: Any, revision: int) -> int:
        """Stage a write over exactly `revision`; raises :class:`Conflict`."""
        key, body = self._key(name), codec.encode(value)
        staged = self._staged.get(key)
        if staged is None:
            await self._reach(name, revision)
            self._staged[key] = Write(key, body, self._seen[key], read=True)
            return revision
        self._check()
        if staged.body is None or _revision(staged) != revision:
            raise conflict(f"{name} has changed meanwhile")
        return self._stage(key, body)

    async def delete(self, name: str) -> None:
        """Stage a deletion; a name that does not exist is no error."""
        self._check()
        key = self._key(name)
        if key not in self._seen:
            await super()._read(
                key
            )  # to see whether there is anything: not a read of the handler's
        if self._seen[key].exists:
            self._stage(key, None)
        else:
            self._staged.pop(key, None)

    async def names(self) -> list[str]:
        """All names that have a value once this message has succeeded, sorted."""
        names = set(await super().names())
        for key, staged in self._staged.items():
            name = key.removeprefix(self._prefix)
            if staged.body is None:
                names.discard(name)
            else:
                names.add(name)
        return sorted(names)

    def staged(self) -> tuple[Write, ...]:
        """The writes to commit; see :meth:`State.staged`."""
        if self._late is not None:
            raise self._late
        return tuple(self._staged.values())

    def looked(self) -> Mapping[str, Record | None]:
        """The record of each key that the handler's outcome rests on."""
        return self._looked

    def _note(self, key: str, record: Record | None) -> None:
        super()._note(key, record)
        self._looked.setdefault(key, record)

    async def _read(self, key: str) -> Record | None:
        record = await super()._read(key)
        self._first.setdefault(key, self._seen[key])
        return record

    def _stage(self, key: str, body: bytes | None) -> int:
        """Stage a write over what an earlier one, or the handler's first read, was based on."""
        staged = self._staged.get(key)
        if staged is not None:
            write = staged._replace(body=body)
        elif (first := self._first.get(key)) is not None:
            write = Write(key, body, first, read=True)
        else:
            write = Write(key, body, self._seen.get(key), read=False)
        self._staged[key] = write
        return _revision(write)


def _revision(staged: Write) -> int:
    """The revision that a staged write will replace; 0 where nothing was read."""
    return staged.seen.revision if staged.seen is not None else 0
