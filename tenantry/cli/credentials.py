"""`tenantry tenants credentials …`: the keys of a tenant's programs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from tenantry import subjects
from tenantry.cli import connection, expiry, keyfile, loop, output
from tenantry.cli.connection import Connection
from tenantry.cli.control import ask, control
from tenantry.cli.options import CredsFile, Output, TenantId
from tenantry.cli.usage import UsageError, examples
from tenantry.messages import (
    Credential,
    Empty,
    Message,
    Plan,
    PlanList,
    RevokeCredentials,
    Tenant,
    TenantAnswer,
    TenantRef,
)
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import Kind, is_public_key
from tenantry.plans import outdated

app = App(
    name="credentials",
    help="Issue, list and revoke the credentials of a tenant's programs.",
    help_epilogue=examples(
        "tenantry tenants credentials issue acme --name laptop --expires 30d",
        "tenantry tenants credentials list acme",
        "tenantry tenants credentials revoke acme --all",
    ),
)


class Issued(msgspec.Struct, frozen=True):
    """What `issue -o json` prints."""

    tenant: str
    credential: Credential
    file: str


@app.command(
    help_epilogue=examples(
        "tenantry tenants credentials issue acme --name laptop --expires 30d",
        "tenantry tenants credentials issue acme --expires 2027-01-31",
    )
)
def issue(
    tenant: TenantId,
    /,
    *,
    name: Annotated[str, Parameter(help="for people: which program it is for")] = "",
    expires: Annotated[
        str | None, Parameter(help="30d, 12h, or a date; by default never", metavar="WHEN")
    ] = None,
    creds_file: CredsFile = None,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Issue credentials for another program of a tenant.

    Writes ./TENANT.creds, or ./TENANT-NAME.creds where it has a name. The
    key pair is made here; its secret half never leaves this machine.
    """
    subjects.check_tenant(tenant)
    until = None if expires is None else expiry.parse(expires, time.time())
    part = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")
    default = Path(f"{tenant}-{part}.creds" if part else f"{tenant}.creds")
    file = creds_file or default
    with keyfile.reserve(file) as fill:
        holder, creds = loop.run(_issue(at, tenant, name, until, fill))
    key = creds_files.public_key_of(creds)
    if form == "json":
        made = next(each for each in holder.credentials if each.public_key == key)
        output.json(Issued(tenant, made, str(file)))
        return
    output.line(f"issued credentials for {tenant}: {key}")
    output.line(f"credentials: {file}")
    if until is not None:
        output.line(f"expires: {output.moment(until)}")


@app.command(name="list", help_epilogue=examples("tenantry tenants credentials list acme"))
def list_(
    tenant: TenantId,
    /,
    *,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """List a tenant's credentials, also those that are void."""
    body = TenantRef(id=subjects.check_tenant(tenant))
    found = loop.run(ask(at, "show", body, Tenant)).credentials
    if form == "json":
        output.json(found)
        return
    rows = [
        (
            each.public_key,
            each.name,
            _state(each),
            output.moment(each.issued),
            output.moment(each.expires) or "never",
        )
        for each in found
    ]
    output.table(("key", "name", "state", "issued", "expires"), rows)


@app.command(
    help_epilogue=examples(
        "tenantry tenants credentials revoke acme UDS2RA…",
        "tenantry tenants credentials revoke acme --all",
    )
)
def revoke(
    tenant: TenantId,
    key: Annotated[str | None, Parameter(help="which one, as `list` shows it")] = None,
    /,
    *,
    every: Annotated[
        bool, Parameter(name="--all", negative="", help="all of the tenant's credentials")
    ] = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Revoke credentials: programs that use them are cut off at once."""
    if (key is None) != every:
        raise UsageError("which credentials?", hint="give one KEY, or --all")
    if key is not None and not is_public_key(key, Kind.USER):
        raise UsageError(
            f"{key!r} is not the key of credentials",
            hint=f"`tenantry tenants credentials list {tenant}` shows them",
        )
    body = RevokeCredentials(id=subjects.check_tenant(tenant), public_key=key)
    answer = loop.run(ask(at, "revoke_credentials", body, TenantAnswer))
    if form == "json":
        output.json(answer.tenant)
    else:
        output.line(f"revoked {'all credentials' if every else key} of {tenant}")


async def change(
    at: Connection, action: str, body: Message
) -> tuple[TenantAnswer, dict[str, Plan]]:
    """Change a tenant's limits; the answer, and all plans."""
    async with control(at) as mesh:
        answer = await mesh.call(action, body, TenantAnswer)
        found = await mesh.call("plans", Empty(), PlanList)
        return answer, {plan.name: plan for plan in found.plans}


def note_outdated(tenant: Tenant, plans: Mapping[str, Plan]) -> None:
    """Tell of credentials that the server still holds to the subscriptions of before."""
    if found := outdated(tenant, plans, time.time()):
        keys = ", ".join(each.public_key for each in found)
        output.note(
            f"subscriptions: these credentials keep the limit of before, until new ones are issued"
            f" (`tenantry tenants credentials issue {tenant.id}`) and they are revoked: {keys}"
        )


async def _issue(
    at: Connection, tenant: str, name: str, expires: float | None, fill: Callable[[str], None]
) -> tuple[Tenant, str]:
    async with control(at) as mesh:
        holder, creds = await mesh.issue(tenant, name=name, expires=expires)
        await keyfile.keep(mesh, tenant, creds, fill)
        return holder, creds


def _state(credential: Credential) -> str:
    if credential.revoked is not None:
        return "revoked"
    if credential.expires is not None and credential.expires <= time.time():
        return "expired"
    return "in force"
