"""Prints lag for `tenantry services --lag` and `tenantry tenants show`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tenantry import lag
from tenantry.cli import loop, output
from tenantry.cli.connection import Connection
from tenantry.errors import NotFound
from tenantry.lag import PartitionLag, ServiceLag, TenantLag

_COLUMNS = (
    *("service", "instances", "waiting", "in hand"),
    *("sidelined", "oldest", "dead letters"),
)
_PARTITIONS = (
    *("service", "partition", "owner", "renewed", "read to"),
    *("floor", "waiting", "in hand", "sidelined", "oldest"),
)
_NOBODY = "none"
_REASONS = {"backlog": "catching up with its backlog", "replay": "waits for its replay"}


def show(at: Connection, name: str | None, form: output.Format, *, partitions: bool) -> None:
    """Print the lag of all services, or of one. Raises :class:`NotFound`."""
    found = loop.run(_services(at))
    if name is not None:
        found = [each for each in found if each.service == name]
        if not found:
            raise NotFound(
                f"no service {name} reads the journal", hint="`tenantry services` lists them all"
            )
    if form == "json":
        output.json([msgspec.to_builtins(each) for each in found] if partitions else _short(found))
    elif partitions:
        rows = [_partition(each.service, part) for each in found for part in each.partitions]
        output.table(_PARTITIONS, rows)
    else:
        output.table(_COLUMNS, [_row(each) for each in found])


def lines(found: Sequence[TenantLag]) -> list[str]:
    """The lag of a tenant: a line for each service with something to tell, or one with `none`."""
    told = [f"{each.service}: {', '.join(parts)}" for each in found if (parts := _parts(each))]
    return [
        f"{'lag' if not index else '':<13}{line}" for index, line in enumerate(told or ["none"])
    ]


async def _services(at: Connection) -> list[ServiceLag]:
    async with await at.connect("control") as bus:
        return await lag.services(bus)


def _short(found: Sequence[ServiceLag]) -> list[dict[str, object]]:
    """Without the partitions."""
    rows = [msgspec.structs.asdict(each) for each in found]
    return [{key: value for key, value in row.items() if key != "partitions"} for row in rows]


def _row(each: ServiceLag) -> tuple[object, ...]:
    instances = each.instances or _NOBODY
    oldest = _duration(each.oldest)
    figures = (each.waiting, each.in_hand, each.sidelined)
    return (each.service, instances, *figures, oldest, each.dead)


def _partition(service: str, each: PartitionLag) -> tuple[object, ...]:
    renewed = _duration(each.renewed)
    if each.owner and each.renewed is None:
        renewed = "gone"
    owner = each.owner or _NOBODY
    figures = (each.read_to, each.floor, each.waiting, each.in_hand, each.sidelined)
    return (service, each.partition, owner, renewed, *figures, _duration(each.oldest))


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else output.duration(seconds)


def _parts(each: TenantLag) -> list[str]:
    parts = []
    if each.waiting:
        parts.append(f"{each.waiting} waiting")
    if each.in_hand:
        parts.append(f"{each.in_hand} in hand")
    if each.failed:
        when = output.moment(each.retry_at) if each.retry_at else "once"
        parts.append(
            f"retrying since {output.moment(each.since)} ({each.code}, try {each.failed + 1} "
            f"at {when})"
        )
    elif each.sidelined:
        parts.append(_REASONS.get(each.sidelined, f"sidelined ({each.code or each.sidelined})"))
    if each.dead:
        parts.append(f"{each.dead} dead letter{'s' * (each.dead != 1)}")
    return parts
