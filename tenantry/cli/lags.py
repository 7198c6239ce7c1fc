"""How `tenantry services --lag` and `tenantry tenants show` tell of lag."""

from __future__ import annotations

from collections.abc import Sequence

from tenantry import lag
from tenantry.cli import loop, output
from tenantry.cli.connection import Connection
from tenantry.errors import NotFound
from tenantry.lag import ServiceLag, TenantLag

_COLUMNS = ("service", "waiting", "in hand", "tenants behind", "oldest", "dead letters")


def show(at: Connection, name: str | None, form: output.Format) -> None:
    """Print the lag of all services, or of one. Raises :class:`NotFound`."""
    found = loop.run(_services(at))
    if name is not None:
        found = [each for each in found if each.service == name]
        if not found:
            raise NotFound(
                f"no service {name} reads the journal", hint="`tenantry services` lists them all"
            )
    if form == "json":
        output.json(found)
    else:
        output.table(_COLUMNS, [_row(each) for each in found])


def lines(found: Sequence[TenantLag]) -> list[str]:
    """What to say of a tenant: a line for each service where it is behind, or one that none is."""
    told = [f"{each.service}: {', '.join(parts)}" for each in found if (parts := _parts(each))]
    return [
        f"{'lag' if not index else '':<13}{line}" for index, line in enumerate(told or ["none"])
    ]


async def _services(at: Connection) -> list[ServiceLag]:
    async with await at.connect("control") as bus:
        return await lag.services(bus)


def _row(each: ServiceLag) -> tuple[object, ...]:
    oldest = None if each.oldest is None else output.duration(each.oldest)
    return (each.service, each.waiting, each.in_hand, each.behind, oldest, each.dead)


def _parts(each: TenantLag) -> list[str]:
    parts = []
    if each.waiting:
        parts.append(f"{each.waiting} waiting")
    if each.failed:
        parts.append(
            f"retrying since {output.moment(each.since)} ({each.code}, try {each.failed + 1} "
            f"at {output.moment(each.retry_at)})"
        )
    elif each.behind:
        parts.append("read apart")
    if each.dead:
        parts.append(f"{each.dead} dead letter{'s' * (each.dead != 1)}")
    return parts
