"""`tenantry tenants …`: the control plane's requests about tenants."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from tenantry import lag as lag_of
from tenantry import subjects
from tenantry.cli import confirm, connection, keyfile, lags, loop, output
from tenantry.cli.connection import Connection
from tenantry.cli.control import all_tenants, ask, control
from tenantry.cli.credentials import app as credentials
from tenantry.cli.credentials import change, note_outdated
from tenantry.cli.options import CredsFile, Output, TenantId
from tenantry.cli.usage import examples
from tenantry.lag import TenantLag
from tenantry.messages import (
    SetPlan,
    SuspendTenant,
    Tenant,
    TenantAnswer,
    TenantRef,
    TenantState,
)
from tenantry.operator.keys import KeyPair

app = App(
    name="tenants",
    help="Create, show, suspend and delete tenants, and issue their credentials.",
    help_epilogue=examples(
        "tenantry tenants create acme --plan premium",
        "tenantry tenants list -o json",
        "tenantry tenants credentials issue acme --name laptop --expires 30d",
        "tenantry tenants suspend acme --reason 'invoice overdue'",
    ),
)
app.command(credentials)


@app.command(
    help_epilogue=examples(
        "tenantry tenants create acme",
        "tenantry tenants create acme --plan premium --creds-file ~/keys/acme.creds",
    )
)
def create(
    tenant: TenantId,
    /,
    *,
    plan: Annotated[str, Parameter(help="the plan, see `tenantry plans`")] = "standard",
    creds_file: CredsFile = None,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Create a tenant, with credentials for its first program.

    The key pair is made here; its secret half never leaves this machine.
    When it is cut off, run it again.
    """
    subjects.check_tenant(tenant)
    file = creds_file or Path(f"{tenant}.creds")
    with keyfile.reserve_key(file) as (key, fill):
        made, creds = loop.run(_create(at, tenant, plan, key))
        fill(creds)
    _print(made, form, f"created {tenant} on the plan {made.plan}", f"credentials: {file}")


@app.command(
    help_epilogue=examples(
        "tenantry tenants show acme", "tenantry tenants show acme -o json | jq .plan"
    )
)
def show(
    tenant: TenantId,
    /,
    *,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Show a tenant, and where it is behind: what waits, is tried again, is dead."""
    found, lag = loop.run(_show(at, subjects.check_tenant(tenant)))
    if form == "json":
        output.json({**msgspec.to_builtins(found), "lag": lag})
        return
    _print(
        found,
        form,
        f"tenant       {found.id}",
        f"plan         {found.plan}",
        f"state        {found.state}",
        f"created      {output.moment(found.created)}",
        f"changed      {output.moment(found.updated)} ({found.change.replace('_', ' ')})",
        f"credentials  {_in_force(found)} in force",
        *lags.lines(lag),
    )


@app.command(
    name="list",
    help_epilogue=examples(
        "tenantry tenants list", "tenantry tenants list --only suspended -o json"
    ),
)
def list_(
    *,
    only: Annotated[TenantState | None, Parameter(help="those in this state")] = None,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """List all tenants, in the order of their ids."""
    found = loop.run(all_tenants(at, only))
    if form == "json":
        output.json([_listed(*each) for each in found])
        return
    rows = [
        (
            each.id,
            each.plan,
            each.state,
            output.moment(each.created),
            "-" if count is None else count,
        )
        for each, count in found
    ]
    output.table(("tenant", "plan", "state", "created", "credentials"), rows)


@app.command(help_epilogue=examples("tenantry tenants suspend acme --reason 'invoice overdue'"))
def suspend(
    tenant: TenantId,
    /,
    *,
    reason: Annotated[str, Parameter(help="why, for those who look at the tenant later")] = "",
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Suspend a tenant: its messages are refused until it is resumed.

    What it has stored or scheduled already waits, but for what a handler has begun.
    """
    body = SuspendTenant(id=subjects.check_tenant(tenant), reason=reason)
    answer = loop.run(ask(at, "suspend", body, TenantAnswer))
    _print(answer.tenant, form, f"suspended {tenant}")


@app.command(help_epilogue=examples("tenantry tenants resume acme"))
def resume(
    tenant: TenantId,
    /,
    *,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Let a suspended tenant send again; what has waited is handled within seconds."""
    body = TenantRef(id=subjects.check_tenant(tenant))
    answer = loop.run(ask(at, "resume", body, TenantAnswer))
    _print(answer.tenant, form, f"resumed {tenant}")


@app.command(help_epilogue=examples("tenantry tenants set-plan acme premium"))
def set_plan(
    tenant: TenantId,
    plan: Annotated[str, Parameter(help="the plan, see `tenantry plans`")],
    /,
    *,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Put a tenant on another plan, at once."""
    body = SetPlan(id=subjects.check_tenant(tenant), plan=plan)
    answer, plans = loop.run(change(at, "set_plan", body))
    _print(answer.tenant, form, f"{tenant} is on the plan {answer.tenant.plan}")
    if form != "json":
        note_outdated(answer.tenant, plans)


@app.command(
    help_epilogue=examples("tenantry tenants delete acme", "tenantry tenants delete acme --yes")
)
def delete(
    tenant: TenantId,
    /,
    *,
    yes: Annotated[bool, Parameter(negative="", help="do not ask")] = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Delete a tenant and revoke its credentials. What it stored stays till erased."""
    subjects.check_tenant(tenant)
    if not yes:
        question = f"Delete the tenant {tenant} and revoke its credentials?"
        confirm.typed(tenant, question, doing="deleting", done="deleted")
    answer = loop.run(ask(at, "delete", TenantRef(id=tenant), TenantAnswer))
    _print(answer.tenant, form, f"deleted {tenant}; its credentials are revoked")


async def _show(at: Connection, tenant: str) -> tuple[Tenant, list[TenantLag]]:
    async with control(at) as mesh:
        found = await mesh.call("show", TenantRef(id=tenant), Tenant)
        return found, await lag_of.tenant(mesh.bus, tenant)


async def _create(at: Connection, tenant: str, plan: str, key: KeyPair) -> tuple[Tenant, str]:
    async with control(at) as mesh:
        return await mesh.create(tenant, plan=plan, key=key)


def _print(tenant: Tenant, form: output.Format, *lines: str) -> None:
    if form == "json":
        output.json(tenant)
    else:
        output.line("\n".join(lines))


def _listed(tenant: Tenant, count: int | None) -> dict[str, object]:
    """A tenant with the number of its credentials in force: a list does not tell them apart."""
    fields = msgspec.to_builtins(tenant)
    del fields["credentials"]
    return {**fields, "credentials_in_force": count}


def _in_force(tenant: Tenant) -> int:
    now = time.time()
    return sum(
        1
        for each in tenant.credentials
        if each.revoked is None and (each.expires is None or each.expires > now)
    )
