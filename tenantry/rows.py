"""What is known of single tenants of one service: rows in a bucket, key `<service>.<tenant>`.

Every replica has them in memory; who writes a row does so over the revision it has seen, so that
of two replicas which both believe that a tenant is theirs only one goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from tenantry.bus import Bucket, Bus, Table
from tenantry.messages import Cursor, Replay, Suspension

T = TypeVar("T")


class Rows(Generic[T]):
    """The rows of one service; `none` stands for a tenant that has none."""

    def __init__(self, bus: Bus, bucket: str, kind: type[Any], service: str, none: T) -> None:
        self._prefix = f"{service}."
        self._none = none
        self._bucket: Bucket[T] = Bucket(bus, bucket, kind)
        self._table = Table(self._bucket, filter=f"{service}.*")

    async def start(self) -> None:
        """Load the rows and keep them current."""
        await self._table.start()

    async def stop(self) -> None:
        """Watch no more."""
        await self._table.stop()

    async def sync(self) -> None:
        """Return when everything is known that was written until now."""
        await self._table.sync()

    def listen(self, changed: Callable[[str], None]) -> None:
        """Call `changed(tenant)` when somebody else has changed a row."""
        self._table.listen(lambda key, _: changed(key.removeprefix(self._prefix)))

    def of(self, tenant: str) -> T:
        """The row of a tenant, as last heard."""
        return self._table.rows.get(self._prefix + tenant, self._none)

    def tenants(self) -> list[str]:
        """The tenants that have a row."""
        return [key.removeprefix(self._prefix) for key in self._table.rows]

    async def change(self, tenant: str, change: Callable[[T], T]) -> T:
        """Change a row as it is now; one that becomes `none` is deleted.

        Raises what `change` raises, and :class:`Conflict` where others change it all the time.
        """
        key = self._prefix + tenant

        def changed(there: T | None) -> T | None:
            row = change(there if there is not None else self._none)
            return None if row == self._none else row

        value, revision = await self._bucket.change(key, changed)
        if revision:
            self._table.wrote(key, value, revision)
        return value if value is not None else self._none


def cursors(bus: Bus, service: str) -> Rows[Cursor]:
    """Which state is live of the tenants that were replayed or recovered."""
    return Rows(bus, "cursors", Cursor, service, Cursor())


def suspended(bus: Bus) -> Table[Suspension]:
    """The tenants whose stored messages wait."""
    return Table(Bucket(bus, "suspended", Suspension))


def replays(bus: Bus, service: str) -> Rows[Replay | None]:
    """The last replay of each tenant."""
    return Rows(bus, "replays", Replay, service, cast("Replay | None", None))
