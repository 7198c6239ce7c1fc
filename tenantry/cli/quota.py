"""`tenantry quota`: what a tenant may use, has used, and when that begins anew."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from tenantry import subjects
from tenantry.bus import Bucket
from tenantry.cli import connection, loop, output
from tenantry.cli.connection import Connection
from tenantry.cli.control import control
from tenantry.cli.options import Output, TenantId
from tenantry.errors import NotFound
from tenantry.messages import Count, Empty, Plan, PlanList, Quota, Tenant, TenantRef, Usage
from tenantry.plans import effective, window_of


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of a tenant, and how it stands."""

    name: str
    kind: str
    limit: float
    amount: int | None = None
    """What the plan includes of a quota."""
    used: int | None = None
    reserved: int | None = None
    """In the hands of routers: used soon, or given back."""
    left: int | None = None
    window: str | None = None
    resets: float | None = None
    """Seconds since the epoch."""
    state: str = ""


def quota(
    tenant: TenantId, /, *, form: Output = "table", at: Connection = connection.DEFAULT
) -> None:
    """Show every limit of a tenant: what is used, what is left, when it begins anew.

    Rates and bodies have nothing to use up. Of a quota, `reserved` is in the
    hands of routers: used within seconds, or given back. Used lags by what they
    have not told yet, at most ten seconds.
    """
    subjects.check_tenant(tenant)
    record, plan, usage = loop.run(_look(at, tenant))
    now = time.time()
    own = effective(plan, record.override, now)
    limits = [*_fixed(own), *(_standing(each, usage, now) for each in own.quotas)]
    if form == "json":
        about = {"tenant": tenant, "plan": plan.name, "override": own is not plan}
        output.json(about | {"limits": limits})
        return
    output.note(f"{tenant} on the plan {plan.name}{_until(record, own is not plan)}")
    output.table(
        ("limit", "of", "used", "reserved", "left", "begins anew", ""),
        [_row(each) for each in limits],
    )


async def _look(at: Connection, name: str) -> tuple[Tenant, Plan, Usage]:
    async with control(at) as mesh:
        tenant = await mesh.call("show", TenantRef(id=name), Tenant)
        plans = (await mesh.call("plans", Empty(), PlanList)).plans
        plan = next((each for each in plans if each.name == tenant.plan), None)
        if plan is None:
            raise NotFound(f"the plan {tenant.plan} of {name} is gone")
        entry = await Bucket(mesh.bus, "usage", Usage).get(name)
        return tenant, plan, entry.value if entry is not None else Usage()


def _fixed(plan: Plan) -> list[Limit]:
    """What has nothing to use up."""
    shadow = "shadow" if plan.shadow else ""
    found = [
        Limit(name="rate", kind="messages a second", limit=plan.rate, state=shadow),
        Limit(name="burst", kind="messages at once", limit=plan.burst, state=shadow),
    ]
    for rate in plan.rates:
        state = "shadow" if rate.shadow else ""
        found += [
            Limit(name=rate.scope, kind="messages a second", limit=rate.rate, state=state),
            Limit(name=rate.scope, kind="messages at once", limit=rate.burst, state=state),
        ]
    if plan.concurrency:
        found.append(Limit(name="concurrency", kind="at once in a service", limit=plan.concurrency))
    found.append(Limit(name="body", kind="bytes", limit=plan.max_body))
    return found


def _standing(quota: Quota, usage: Usage, now: float) -> Limit:
    window = window_of(quota.period, now)
    count = usage.counts.get(quota.name, Count())
    if count.window != window.name:
        count = Count(window=window.name)
    return Limit(
        name=quota.name,
        kind=f"messages a {quota.period}",
        limit=quota.limit,
        amount=quota.amount,
        used=count.used,
        reserved=count.leased - count.used,
        left=max(0, quota.limit - count.leased),
        window=count.window,
        resets=window.end,
        state=_state(quota, count.used),
    )


def _state(quota: Quota, used: int) -> str:
    if quota.shadow:
        return "shadow"
    if used >= quota.limit:
        return "refuses"
    return quota.between if used > quota.threshold else ""


def _row(limit: Limit) -> tuple[Any, ...]:
    return (
        limit.name,
        f"{limit.limit:g} {limit.kind}" if limit.limit % 1 else f"{int(limit.limit)} {limit.kind}",
        limit.used,
        limit.reserved,
        limit.left,
        output.moment(limit.resets),
        limit.state,
    )


def _until(tenant: Tenant, own: bool) -> str:
    if not own or tenant.override is None:
        return ""
    end = tenant.override.until
    return ", with limits of its own" + (f" until {output.moment(end)}" if end else "")
