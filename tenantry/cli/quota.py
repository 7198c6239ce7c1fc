"""`tenantry quota`: what a tenant may use, has used, and when that begins anew."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from tenantry import subjects, volumes
from tenantry.bus import Bucket
from tenantry.cli import connection, levels, loop, output
from tenantry.cli.connection import Connection
from tenantry.cli.control import control
from tenantry.cli.options import Output, TenantId
from tenantry.errors import NotFound
from tenantry.messages import (
    Count,
    Empty,
    Plan,
    PlanList,
    Quota,
    Rate,
    Tenant,
    TenantRef,
    Usage,
    Volume,
)
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
    """Of a rate's burst: messages that could come at once now; None where no router answers."""
    window: str | None = None
    resets: float | None = None
    """Seconds since the epoch."""
    state: str = ""


def quota(
    tenant: TenantId, /, *, form: Output = "table", at: Connection = connection.DEFAULT
) -> None:
    """Show every limit of a tenant: what is used, what is left, when it begins anew.

    Of a quota, `reserved` is in the hands of routers: used within seconds, or
    given back. `used` is what they have told: a message is in it 5 to 10 seconds
    after it came at the latest.

    Of a burst, `left` is how many messages could come at once now, as the routers
    that answer know it. Where they share rates: by what Redis said when it was
    last asked, less than a second ago for a tenant that sends. Else: the sum of
    each one's own part. A router that has heard nothing of a tenant lately takes
    its burst for full.
    """
    subjects.check_tenant(tenant)
    found = loop.run(_look(at, tenant))
    now, plan = time.time(), found.plan
    own = effective(plan, found.record.override, now)
    limits = [*_fixed(own, found.left), *(_standing(each, found.usage, now) for each in own.quotas)]
    if own.journal_bytes:
        limits.append(_journal(own.journal_bytes, found.volume, now))
    if form == "json":
        about = {"tenant": tenant, "plan": plan.name, "override": own is not plan}
        output.json(about | {"limits": limits})
        return
    output.note(f"{tenant} on the plan {plan.name}{_until(found.record, own is not plan)}")
    output.table(
        ("limit", "of", "used", "reserved", "left", "begins anew", ""),
        [_row(each) for each in limits],
    )


class _Found(NamedTuple):
    record: Tenant
    plan: Plan
    usage: Usage
    volume: Volume
    left: dict[str, float]
    """Of each rate, what routers know."""


async def _look(at: Connection, name: str) -> _Found:
    async with control(at) as mesh:
        tenant = await mesh.call("show", TenantRef(id=name), Tenant)
        plans = (await mesh.call("plans", Empty(), PlanList)).plans
        plan = next((each for each in plans if each.name == tenant.plan), None)
        if plan is None:
            raise NotFound(f"the plan {tenant.plan} of {name} is gone")
        entry = await Bucket(mesh.bus, "usage", Usage).get(name)
        row = await Bucket(mesh.bus, volumes.BUCKET, Volume).get(name)
        return _Found(
            tenant,
            plan,
            entry.value if entry is not None else Usage(),
            row.value if row is not None else Volume(),
            await levels.of(mesh.bus, name),
        )


def _fixed(plan: Plan, left: Mapping[str, float]) -> list[Limit]:
    """What does not begin anew at some time; `left` is what is left of each rate's burst."""
    found = _rate("rate", "burst", plan, left.get(""))
    for rate in plan.rates:
        found += _rate(rate.scope, rate.scope, rate, left.get(rate.scope))
    if plan.concurrency:
        found.append(Limit(name="concurrency", kind="at once in a service", limit=plan.concurrency))
    if plan.connections:
        found.append(Limit(name="connections", kind="at once", limit=plan.connections))
    if plan.subscriptions:
        kind = "in a connection"
        found.append(Limit(name="subscriptions", kind=kind, limit=plan.subscriptions))
    found.append(Limit(name="body", kind="bytes", limit=plan.max_body))
    return found


def _rate(name: str, burst: str, rate: Plan | Rate, left: float | None) -> list[Limit]:
    state = "shadow" if rate.shadow else ""
    rest = None if left is None else math.floor(left)
    empty = state or ("refuses" if rest == 0 else "")
    return [
        Limit(name=name, kind="messages a second", limit=rate.rate, state=state),
        Limit(name=burst, kind="messages at once", limit=rate.burst, left=rest, state=empty),
    ]


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


def _journal(bound: int, volume: Volume, now: float) -> Limit:
    """The journal's bytes; they make room when the first of them go."""
    used = volumes.total(volume, now)
    return Limit(
        name=volumes.NAME,
        kind="bytes",
        limit=bound,
        used=used,
        left=max(0, bound - used),
        state="refuses" if used >= bound else "",
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
