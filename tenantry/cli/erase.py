"""`tenantry journal erase`: one tenant's leaving."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tenantry import subjects
from tenantry.cli import confirm, connection, loop, output
from tenantry.cli.connection import Connection
from tenantry.cli.options import Output, TenantId
from tenantry.journal import erase as erasing
from tenantry.journal.erase import Erased


def erase(
    tenant: TenantId,
    /,
    *,
    yes: Annotated[bool, Parameter(negative="", help="do not ask")] = False,
    force: Annotated[
        bool, Parameter(negative="", help="also of a tenant that is active, or unknown")
    ] = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Erase what the mesh holds of a tenant: messages, dead letters, schedules, state.

    The tenant has to be suspended or deleted. It can't be undone, and it
    can be repeated. Other tenants are not touched.
    """
    subjects.check_tenant(tenant)

    async def check() -> None:
        async with await at.connect("control") as bus:
            await erasing.check_gone(bus, tenant, force=force)

    async def run() -> list[Erased]:
        async with await at.connect("control") as bus:
            await erasing.check_gone(bus, tenant, force=force)
            return await erasing.erase(bus, tenant)

    if not yes:
        loop.run(check())
        question = f"Erase all messages and state of {tenant}, for good?"
        confirm.typed(tenant, question, doing="erasing", done="erased")
    erased = loop.run(run())
    if form == "json":
        output.json({"tenant": tenant, "erased": erased, "not_reached": erasing.NOT_REACHED})
        return
    rows = [(each.what, each.stream, each.count) for each in erased]
    output.table(("what", "stream", "erased"), rows)
    output.line("Nothing of it is left there. Not reached:")
    for each in erasing.NOT_REACHED:
        output.line(f"  {each}")
