"""How much tenants have used of the quotas of their plans, in the days and months that run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from tenantry.bus import Bucket, Bus
from tenantry.bus.scan import scan
from tenantry.errors import JetStreamError, Rejection
from tenantry.messages import Plan, Tenant, Usage
from tenantry.plans import effective, window_of

T = TypeVar("T")


class Consumption(msgspec.Struct, frozen=True, kw_only=True):
    """What one tenant has used."""

    used: dict[str, int]
    """Messages by quota."""
    percent: float | None = None
    """Of what the plan includes, of the quota most of which is used; None without any in force."""
    name: str | None = None
    """That quota."""


def consumption(plan: Plan, usage: Usage | None, now: float) -> Consumption:
    """What is used of a plan's quotas at `now` (seconds since the epoch)."""
    used: dict[str, int] = {}
    parts: list[tuple[float, str]] = []
    for quota in plan.quotas:
        count = usage.counts.get(quota.name) if usage is not None else None
        runs = count is not None and count.window == window_of(quota.period, now).name
        used[quota.name] = count.used if count is not None and runs else 0
        if not quota.shadow:
            parts.append((100 * used[quota.name] / quota.amount, quota.name))
    percent, name = max(parts, default=(None, None))
    return Consumption(used=used, percent=None if percent is None else round(percent, 1), name=name)


async def of(bus: Bus, names: Sequence[str]) -> dict[str, Consumption]:
    """What these tenants have used, but those that are none; nothing where none is counted.

    `bus` needs the role `control`. Raises :class:`~tenantry.errors.Unavailable`.
    """
    usage, tenants = Bucket(bus, "usage", Usage), Bucket(bus, "tenants", Tenant)
    try:
        await usage.status()
    except (JetStreamError, Rejection):
        return {}
    plans = await _all(bus, "plans", Plan)
    rows = await asyncio.gather(*(usage.get(name) for name in names))
    records = await asyncio.gather(*(tenants.get(name) for name in names))
    return _by_tenant(
        plans,
        {name: row.value for name, row in zip(names, records, strict=True) if row is not None},
        {name: row.value for name, row in zip(names, rows, strict=True) if row is not None},
    )


async def first(bus: Bus, limit: int) -> list[str]:
    """The tenants that have used most of a quota, the highest first; none that has used nothing.

    It reads all that is counted. Raises as :func:`of`.
    """
    try:
        usage = await _all(bus, "usage", Usage)
    except (JetStreamError, Rejection):
        return []
    plans, tenants = await asyncio.gather(_all(bus, "plans", Plan), _all(bus, "tenants", Tenant))
    found = _by_tenant(plans, {name: t for name, t in tenants.items() if name in usage}, usage)
    used = [(each.percent, name) for name, each in found.items() if each.percent]
    return [name for _, name in sorted(used, key=lambda each: (-each[0], each[1]))[:limit]]


def _by_tenant(
    plans: Mapping[str, Plan], tenants: Mapping[str, Tenant], usage: Mapping[str, Usage]
) -> dict[str, Consumption]:
    now = time.time()
    return {
        name: consumption(effective(plan, tenant.override, now), usage.get(name), now)
        for name, tenant in tenants.items()
        if tenant.state != "deleted" and (plan := plans.get(tenant.plan)) is not None
    }


async def _all(bus: Bus, bucket: str, kind: type[T]) -> dict[str, T]:
    """The values of a bucket by key, but those that are of another version."""
    decode, prefix = msgspec.json.Decoder(kind).decode, f"$KV.{bucket}."
    found: dict[str, T] = {}
    async for each in scan(bus, f"KV_{bucket}", f"{prefix}>"):
        key = each.subject.removeprefix(prefix)
        found.pop(key, None)
        if "KV-Operation" not in each.headers:
            try:
                found[key] = decode(each.data)
            except msgspec.MsgspecError:
                continue
    return found
