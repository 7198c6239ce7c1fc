"""`tenantry journal export` and `import`: one tenant's journal in a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.bus.scan import find_next
from tenantry.cli import connection, known, loop, output
from tenantry.cli.connection import Connection
from tenantry.cli.control import control
from tenantry.cli.journal import Since, Until, limited, point
from tenantry.cli.options import Output, TenantId
from tenantry.cli.progress import progress
from tenantry.control import Control
from tenantry.errors import NotFound
from tenantry.journal import Selection, archive, transfer
from tenantry.journal.archive import Summary
from tenantry.journal.transfer import Imported, Importer
from tenantry.messages import Empty, PlanList, Tenant, TenantRef
from tenantry.plans import limits_of
from tenantry.streams import JOURNAL

File = Annotated[Path, Parameter(help="the file; one that ends in .gz is compressed")]


def export(
    tenant: TenantId,
    file: File,
    /,
    *,
    since: Since = None,
    until: Until = None,
    force: Annotated[bool, Parameter(negative="", help="write over the file")] = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Write a tenant's journal to a file, as far as it goes now.

    The file is there when it is whole. It says how many messages it holds
    and their SHA-256. It holds what the tenant's programs sent, in clear:
    keep it as you keep a backup.
    """
    subjects.check_tenant(tenant)
    span = point(since), point(until)

    async def run() -> Summary:
        async with await at.connect("control") as bus:
            await known.check_tenant(bus, tenant)
            wanted = await limited(bus, Selection(tenant=tenant), *span)
            if wanted is None or not await _has_any(bus, wanted):
                raise NotFound(f"the journal holds nothing of {tenant} in this span")
            with progress(f"exporting {tenant}") as tell:
                return await transfer.export(bus, wanted, file, force=force, tell=tell)

    summary = loop.run(run())
    if form == "json":
        output.json({"file": str(file), "count": summary.count, "sha256": summary.sha256})
    else:
        output.line(f"exported {summary.count} messages of {tenant} to {file}")
        output.line(f"sha256: {summary.sha256}")


async def _has_any(bus: Bus, wanted: Selection) -> bool:
    found = await find_next(bus, JOURNAL, wanted.subject, first=wanted.since)
    return found is not None and (not wanted.until or found.seq < wanted.until)


def import_(
    file: File,
    /,
    *,
    as_: Annotated[
        str | None, Parameter(name="--as", help="under this tenant; by default under its own")
    ] = None,
    deliver: Annotated[
        bool, Parameter(negative="", help="have services handle the messages as new ones")
    ] = False,
    dry_run: Annotated[
        bool, Parameter(negative="", help="only check, and say what is to do")
    ] = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Put an exported journal into this mesh, in order, for a tenant that is there.

    All of the file is checked before anything is written. Imported messages
    are history: they can be read and replayed, but no service handles them
    as new unless --deliver is given. One that was interrupted is run again:
    it goes on where it ended.
    """
    if as_ is not None:
        subjects.check_tenant(as_)
    with progress(f"checking {file.name}") as tell:
        summary = archive.check(file, tell=tell)
    tenant = as_ or summary.head.tenant

    async def run() -> Imported:
        async with control(at) as mesh:
            importer = await _importer(mesh, file, summary, tenant, deliver=deliver)
            with progress(f"importing {tenant}", summary.count) as tell:
                return await importer.run(dry=dry_run, tell=tell)

    done = loop.run(run())
    if form == "json":
        output.json(done)
        return
    if done.taken_back:
        output.note(f"{done.taken_back} messages of an earlier import were out of order: anew")
    if dry_run:
        output.line(f"would import {done.count - done.before} messages for {tenant}")
    else:
        output.line(f"imported {done.stored} messages for {tenant}")
    if done.before:
        output.line(f"{done.before} were there from an earlier import")


async def _importer(
    mesh: Control, file: Path, summary: Summary, tenant: str, *, deliver: bool
) -> Importer:
    try:
        found = await mesh.call("show", TenantRef(id=tenant), Tenant)
    except NotFound as error:
        error.hint = f"make it with `tenantry tenants create {tenant}`, or give --as"
        raise
    bus: Bus = mesh.bus
    await mesh.issue_context(tenant)  # refused for a deleted tenant: say so before all else
    await transfer.check_new(bus, summary, tenant)
    plans = (await mesh.call("plans", Empty(), PlanList)).plans
    limits = limits_of(found, {plan.name: plan for plan in plans}, time.time())

    async def token() -> str:
        return await mesh.issue_context(tenant, principal="import")

    return Importer(
        bus,
        file,
        summary,
        tenant=tenant,
        token=token,
        retention=limits.retention if limits is not None else 0,
        deliver=deliver,
    )
