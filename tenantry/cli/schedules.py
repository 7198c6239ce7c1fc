"""`tenantry schedules …`: commands that services send later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from tenantry import schedules, subjects
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.cli import connection, known, loop, output
from tenantry.cli.connection import Connection
from tenantry.cli.control import control
from tenantry.cli.options import Output, TenantId
from tenantry.cli.usage import UsageError, examples
from tenantry.errors import JetStreamError, NotFound, SetupError
from tenantry.schedules import Kept, Schedule

app = App(
    name="schedules",
    help="Show and cancel the commands that services send later.",
    help_epilogue=examples(
        "tenantry schedules list                # of all tenants, the next one first",
        "tenantry schedules list acme --service orders",
        "tenantry schedules cancel acme --all",
    ),
)

_ABOUT = ("due", "tenant", "service", "id", "command", "bytes")

Id = Annotated[str, Parameter(help="the schedule's id, see `tenantry schedules list`")]


class Shown(Schedule, frozen=True, kw_only=True):
    """A schedule with the command's body: JSON as it is, or null for what is no JSON."""

    body: msgspec.Raw


@app.command(
    name="list",
    help_epilogue=examples(
        "tenantry schedules list",
        "tenantry schedules list acme --service orders",
        "tenantry schedules list acme -o json | jq length",
    ),
)
def list_(
    tenant: Annotated[str | None, Parameter(help="only this tenant's")] = None,
    /,
    *,
    service: Annotated[str | None, Parameter(help="only what this service sends")] = None,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """List what waits for its time, the next one first.

    One that was due in the past is of a suspended tenant, or waits for
    the tenants worker.
    """
    if tenant is not None:
        subjects.check_tenant(tenant)
    if service is not None:
        subjects.check_name(service, "service")
    found = loop.run(_find(at, tenant or "*", service or "*"))
    if form == "json":
        output.json(found)
        return
    rows = [
        (output.moment(each.due), each.tenant, each.service, each.id, each.command, each.size)
        for each in found
    ]
    output.table(_ABOUT, rows)


@app.command(
    help_epilogue=examples(
        "tenantry schedules show acme 0123456789abcdef0123456789abcdef",
        "tenantry schedules show acme 0123456789abcdef0123456789abcdef -o json",
    )
)
def show(
    tenant: TenantId,
    id: Id,  # noqa: A002
    /,
    *,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Show one, with the body that it will have."""
    subjects.check_tenant(tenant)
    kept = loop.run(_get(at, tenant, id))
    found = kept.schedule
    if form == "json":
        output.json(Shown(**msgspec.structs.asdict(found), body=_json(kept.body)))
        return
    lines = (
        f"schedule  {found.id}",
        f"tenant    {found.tenant}",
        f"service   {found.service}",
        f"command   {found.command}",
        f"due       {output.moment(found.due)}",
        f"stored    {output.moment(found.stored)}",
        f"body      {kept.body.decode(errors='replace')}",
    )
    output.line("\n".join(lines))


@app.command(
    help_epilogue=examples(
        "tenantry schedules cancel acme 0123456789abcdef0123456789abcdef",
        "tenantry schedules cancel acme --all",
    )
)
def cancel(
    tenant: TenantId,
    /,
    *ids: Id,
    all: Annotated[bool, Parameter(negative="", help="all of this tenant")] = False,  # noqa: A002
    at: Connection = connection.DEFAULT,
) -> None:
    """Cancel commands of one tenant that wait for their time: they are never sent."""
    subjects.check_tenant(tenant)
    if all == bool(ids):
        raise UsageError("give the ids of schedules, or --all")
    if all:
        count = loop.run(_erase(at, tenant))
        output.line(f"cancelled {count} of {tenant}")
        return
    for each in ids:  # before the first is cancelled
        schedules.check_id(each)
    loop.run(_cancel(at, tenant, ids))


@asynccontextmanager
async def _bus(at: Connection) -> AsyncIterator[Bus]:
    async with control(at) as mesh:
        try:
            yield mesh.bus
        except JetStreamError as error:
            if error.err_code != js.STREAM_NOT_FOUND:
                raise
            raise SetupError(
                "this mesh keeps no schedules yet",
                hint="start its tenants worker, of this version: it sets up JetStream",
            ) from None


async def _find(at: Connection, tenant: str, service: str) -> list[Schedule]:
    async with _bus(at) as bus:
        found = await schedules.find(bus, tenant, service)
        if not found and tenant != "*":  # one that was deleted may have left some
            await known.check_tenant(bus, tenant)
        if not found and service != "*" and not await schedules.find(bus, service=service):
            await known.check_service(bus, service)
        return found


async def _get(at: Connection, tenant: str, id: str) -> Kept:  # noqa: A002
    async with _bus(at) as bus:
        return await schedules.get(bus, tenant, id)


async def _cancel(at: Connection, tenant: str, ids: tuple[str, ...]) -> None:
    missing = None
    async with _bus(at) as bus:
        for each in ids:
            try:
                await schedules.cancel(bus, tenant, each)
            except NotFound as error:
                missing = missing or error  # the others are cancelled all the same
            else:
                output.line(f"cancelled {each}")
        if missing is not None:
            raise missing


async def _erase(at: Connection, tenant: str) -> int:
    async with _bus(at) as bus:
        count = await schedules.erase(bus, tenant)
        if not count:
            await known.check_tenant(bus, tenant)
        return count


def _json(body: bytes) -> msgspec.Raw:
    """The body as it is; null where it is no JSON."""
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.Raw(b"null")
    return msgspec.Raw(body)
