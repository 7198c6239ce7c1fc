"""What a service keeps for a tenant: small values in the KV bucket `state`, one namespace each."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from tenantry.bus import Bucket, Bus, Entry
from tenantry.errors import BadMessage, from_inside

T = TypeVar("T")

BUCKET = "state"
_NAME = re.compile(r"[A-Za-z0-9_=-]+(?:\.[A-Za-z0-9_=-]+)*", re.ASCII)


class State:
    """The values of one service for one tenant; keys are `<tenant>.<service>.<name>`."""

    __slots__ = ("_bucket", "_prefix")

    def __init__(self, bus: Bus, tenant: str, service: str) -> None:
        self._bucket: Bucket[msgspec.Raw] = Bucket(bus, BUCKET, msgspec.Raw)
        self._prefix = f"{tenant}.{service}."

    async def get(self, name: str, type: type[T]) -> Entry[T] | None:  # noqa: A002
        """The value of `name` and its revision, or None."""
        key = self._key(name)
        with from_inside():
            entry = await self._bucket.get(key)
        if entry is None:
            return None
        return Entry(msgspec.json.decode(entry.value, type=type), entry.revision)

    async def put(self, name: str, value: Any) -> int:
        """Write, whatever is there; returns the new revision."""
        key = self._key(name)
        with from_inside():
            return await self._bucket.put(key, value)

    async def create(self, name: str, value: Any) -> int:
        """Write a name that must not exist; raises :class:`~tenantry.errors.Conflict`."""
        key = self._key(name)
        with from_inside():
            return await self._bucket.create(key, value)

    async def update(self, name: str, value: Any, revision: int) -> int:
        """Write over exactly `revision`; raises :class:`~tenantry.errors.Conflict`."""
        key = self._key(name)
        with from_inside():
            return await self._bucket.update(key, value, revision)

    async def delete(self, name: str) -> None:
        """Delete."""
        key = self._key(name)
        with from_inside():
            await self._bucket.delete(key)

    def _key(self, name: str) -> str:
        if _NAME.fullmatch(name) is None or len(name) > 200:
            raise BadMessage(
                f"{name[:80]!r} can't name a state", hint="use letters, digits, '_', '-', '=', '.'"
            )
        return self._prefix + name
