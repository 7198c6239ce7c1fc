"""`tenantry plans …`: what tenants can buy, and what one has beside its plan."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from tenantry import plans as documents
from tenantry import subjects
from tenantry.bus import Bus
from tenantry.cli import connection, credentials, expiry, loop, output, services
from tenantry.cli.connection import Connection
from tenantry.cli.control import ask, control
from tenantry.cli.options import Output, TenantId
from tenantry.cli.usage import UsageError, examples
from tenantry.errors import NotFound, Unavailable
from tenantry.messages import Empty, Override, Plan, PlanList, SetOverride

_WITHIN = 5.0
_PAUSE = 0.1

Document = Annotated[Path, Parameter(help="a TOML document, a table for each plan")]

app = App(
    name="plans",
    help="Show and change the plans that tenants can be on; they hold within a second.",
    help_epilogue=examples(
        "tenantry plans                           # lists them",
        "tenantry plans show premium > plans.toml # as a document, to change",
        "tenantry plans diff plans.toml",
        "tenantry plans apply plans.toml",
        "tenantry plans override acme more.toml --until 2026-12-31 --note 'trial'",
    ),
)


class Router(msgspec.Struct, frozen=True):
    """A router, and the revision of the plans that it goes by."""

    instance: str
    revision: int


@app.default
@app.command(name="list", help_epilogue=examples("tenantry plans list", "tenantry plans -o json"))
def list_(*, form: Output = "table", at: Connection = connection.DEFAULT) -> None:
    """List the plans that tenants can be on."""
    found = loop.run(ask(at, "plans", Empty(), PlanList)).plans
    if form == "json":
        output.json(found)
        return
    rows = [
        (
            plan.name,
            f"{plan.rate:g}/s",
            plan.burst,
            ", ".join(f"{each.limit} {each.name}" for each in plan.quotas),
            plan.concurrency or "",
            plan.max_body,
            output.duration(plan.retention),
            f"{plan.timeout:g} s",
            plan.weight,
        )
        for plan in found
    ]
    columns = ("rate", "burst", "quotas", "at once", "max body", "retention", "timeout", "weight")
    output.table(("plan", *columns), rows)


@app.command(help_epilogue=examples("tenantry plans show premium"))
def show(
    plan: Annotated[str, Parameter(help="its name")],
    /,
    *,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Show one plan in full, as a document that `diff` and `apply` take."""
    found = {each.name: each for each in loop.run(ask(at, "plans", Empty(), PlanList)).plans}
    if plan not in found:
        raise NotFound(f"no plan {plan!r}", hint=f"there are {', '.join(sorted(found))}")
    if form == "json":
        output.json(found[plan])
    else:
        output.line(documents.dump(found[plan]).rstrip())


@app.command(help_epilogue=examples("tenantry plans diff plans.toml"))
def diff(
    document: Document,
    /,
    *,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> int:
    """Show what `apply` would change; exit code 1 where there is something."""
    wanted = documents.load(document)
    there = {each.name: each for each in loop.run(ask(at, "plans", Empty(), PlanList)).plans}
    changes = documents.differences(there, wanted)
    if form == "json":
        output.json([each._asdict() for each in changes])
    elif changes:
        _print_changes(changes)
    else:
        output.note("no difference")
    return 1 if changes else 0


@app.command(help_epilogue=examples("tenantry plans apply plans.toml"))
def apply(
    document: Document,
    /,
    *,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Make or change the plans of a document; those that it does not name stay.

    Nothing is written unless all of it is right. It returns when every router
    goes by it, and fails where one does not within five seconds.
    """
    wanted = documents.load(document)
    changes, routers = loop.run(_apply(at, wanted))
    if form == "json":
        output.json({"changes": [each._asdict() for each in changes], "routers": routers})
        return
    if changes:
        _print_changes(changes)
    count = "1 router" if len(routers) == 1 else f"{len(routers)} routers"
    output.note(f"in force in {count}" if changes else "no difference")


@app.command(help_epilogue=examples("tenantry plans status", "tenantry plans status -o json"))
def status(*, form: Output = "table", at: Connection = connection.DEFAULT) -> int:
    """Show each router's revision of the plans; exit code 1 where one is behind."""
    revision, routers = loop.run(_status(at))
    if form == "json":
        output.json({"revision": revision, "routers": routers})
    else:
        rows = [(each.instance, each.revision, each.revision >= revision) for each in routers]
        output.table(("router", "revision", f"at {revision}"), rows)
    return 0 if all(each.revision >= revision for each in routers) else 1


@app.command(
    help_epilogue=examples(
        "tenantry plans override acme more.toml --until 2026-12-31 --note 'trial, Kim'",
        "tenantry plans override acme --clear",
    )
)
def override(
    tenant: TenantId,
    document: Annotated[
        Path | None, Parameter(help="a TOML document with fields of a plan, without a table")
    ] = None,
    /,
    *,
    until: Annotated[str, Parameter(help="when it ends: 30d, or a date")] = "",
    note: Annotated[str, Parameter(help="why, and who")] = "",
    clear: Annotated[bool, Parameter(negative="", help="go back to the plan")] = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Give one tenant other limits than its plan's, for a time or for good."""
    subjects.check_tenant(tenant)
    if clear == (document is not None):
        raise UsageError("give a document, or --clear", hint="see `tenantry plans override --help`")
    given: Override | None = None
    if document is not None:
        end = expiry.parse(until, time.time()) if until else None
        given = msgspec.structs.replace(documents.load_override(document), until=end, note=note)
    body = SetOverride(id=tenant, override=given)
    answer, plans = loop.run(credentials.change(at, "override", body))
    if form == "json":
        output.json(answer.tenant)
        return
    if given is None:
        output.line(f"{tenant} has the limits of the plan {answer.tenant.plan}")
    else:
        end_text = f" until {output.moment(given.until)}" if given.until else ""
        output.line(f"{tenant} has limits of its own{end_text}")
    credentials.note_outdated(answer.tenant, plans)


async def _apply(at: Connection, wanted: list[Plan]) -> tuple[list[documents.Change], list[Router]]:
    async with control(at) as mesh:
        before = await mesh.call("plans", Empty(), PlanList)
        changes = documents.differences({each.name: each for each in before.plans}, wanted)
        after = await mesh.call("apply_plans", PlanList(plans=tuple(wanted)), PlanList)
        end = time.monotonic() + _WITHIN
        while True:
            routers = await _routers(mesh.bus)
            late = [each.instance for each in routers if each.revision < after.revision]
            if not late:
                return changes, routers
            if time.monotonic() > end:
                raise Unavailable(
                    f"written, but not yet in force in {', '.join(late)}",
                    hint="`tenantry plans status` shows when it is",
                )
            await asyncio.sleep(_PAUSE)


async def _status(at: Connection) -> tuple[int, list[Router]]:
    async with control(at) as mesh:
        found = await mesh.call("plans", Empty(), PlanList)
        return found.revision, await _routers(mesh.bus)


async def _routers(bus: Bus) -> list[Router]:
    found = [
        Router(each.id, int(each.metadata.get("plans", "0")))
        for each in await services.infos(bus, "router")
    ]
    return sorted(found, key=lambda each: each.instance)


def _print_changes(changes: list[documents.Change]) -> None:
    rows = [(each.plan, each.field, _value(each.before), _value(each.after)) for each in changes]
    output.table(("plan", "field", "is", "becomes"), rows)
    for each in changes:
        if each.field == "subscriptions" and each.before is not None:
            output.note(
                f"subscriptions: `apply` cuts the connections of tenants on {each.plan} off once;"
                " they come back under the new limit"
            )


def _value(value: Any) -> str:
    if value is None:
        return ""
    return msgspec.json.encode(value).decode() if isinstance(value, tuple) else str(value)
