"""How tenants stand now: what all instances have counted, put together."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Literal

import msgspec

from tenantry import lag
from tenantry.bus import Bus
from tenantry.cli import consumption
from tenantry.cli.consumption import Consumption
from tenantry.messages import Tallies, TallyAsk, TenantTally
from tenantry.messages.tallies import LATENCIES, TallyColumn
from tenantry.operator.roles import TALLIES
from tenantry.runtime.tallies import OTHERS, quantile
from tenantry.wire import codec

Column = TallyColumn | Literal["lag", "quota"]
"""What tenants can be sorted by."""

_WAIT = 0.3
_ROUTER = "router"

_decode = msgspec.json.Decoder(Tallies).decode


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant over all instances; rates are a second's, of the last ten or so."""

    tenant: str
    rate: float = 0.0
    """Messages that routers admitted, and that services sent."""
    sent: float = 0.0
    """Messages that services sent: events and commands."""
    limited: float = 0.0
    """Messages that routers refused for a limit."""
    errors: float = 0.0
    """Messages that were refused for another reason, or whose handling failed."""
    running: int = 0
    """Messages in hand."""
    handled: float = 0.0
    """Messages that services handled: requests, commands, and events once for each follower."""
    p50_ms: float | None = None
    """How long handlers took; None where nothing was handled lately."""
    p99_ms: float | None = None
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    """Messages that routers refused, by code, since the tenant was last idle for a minute."""
    lag: int | None = None
    """Messages that wait in the journal, over all services; None where that was not asked."""
    quota: dict[str, int] | None = None
    """What is used of each quota; None where that is not known."""
    quota_percent: float | None = None
    """The same of the quota most of which is used, in percent of what the plan includes."""
    quota_name: str | None = None


class Standings(msgspec.Struct, frozen=True, kw_only=True):
    """The first tenants by a column, at a time (seconds since the epoch)."""

    at: float
    routers: int
    instances: int
    """Instances of services that answered."""
    known: int
    """Tenants that were there within the last minute, as the router that knows most says."""
    by: Column
    tenants: tuple[Standing, ...] = ()


class Slow(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of JetStream: not each second."""

    lag: int | None = None
    quota: Consumption | None = None


async def first(bus: Bus, by: Column, limit: int) -> list[str] | None:
    """The first tenants by a column that JetStream knows; None for one that instances know.

    Raises :class:`~tenantry.errors.Unavailable`.
    """
    if by == "lag":
        return await lag.longest(bus, limit)
    return await consumption.first(bus, limit) if by == "quota" else None


async def look(bus: Bus, by: Column, limit: int, tenants: Sequence[str] | None = None) -> Standings:
    """Ask all instances; for `tenants` alone where they are given, as lag and quota need it.

    Each tells of its own first tenants; then all are asked for those that are first over all. A
    tenant that is first nowhere, but would be in the sum, is missed. Raises
    :class:`~tenantry.errors.Unavailable`.
    """
    if tenants is not None or by == "lag" or by == "quota":
        names = list(tenants or ())
    else:
        names = _first(await _ask(bus, TallyAsk(by=by, limit=limit)), by, limit)
    told = await _ask(bus, TallyAsk(tenants=tuple(names)) if names else TallyAsk(limit=1))
    routers = [each for each in told if each.service == _ROUTER]
    parts: dict[str, list[tuple[bool, TenantTally]]] = {name: [] for name in names}
    for each in told:
        for tally in each.tenants:
            if tally.tenant in parts:
                parts[tally.tenant].append((each.service == _ROUTER, tally))
    rows = [_sum(name, found) for name, found in parts.items()]
    return Standings(
        at=round(time.time(), 3),
        routers=len(routers),
        instances=len(told) - len(routers),
        known=max((each.known for each in routers), default=0),
        by=by,
        tenants=tuple(sorted(rows, key=lambda row: _value(row, by), reverse=True)),
    )


async def slow(bus: Bus, tenants: Sequence[str]) -> dict[str, Slow]:
    """Lag and quota of some tenants. Raises :class:`~tenantry.errors.Unavailable`."""
    lags, used = await asyncio.gather(lag.tenants(bus, tenants), consumption.of(bus, tenants))
    return {
        name: Slow(lag=sum(each.waiting for each in lags[name]), quota=used.get(name))
        for name in tenants
    }


def with_slow(standings: Standings, found: dict[str, Slow]) -> Standings:
    """The same, with what was asked of JetStream."""
    rows = (
        _complete(row, more) if (more := found.get(row.tenant)) is not None else row
        for row in standings.tenants
    )
    by = standings.by
    ordered = sorted(rows, key=lambda row: _value(row, by), reverse=True)
    return msgspec.structs.replace(standings, tenants=tuple(ordered))


def _complete(row: Standing, more: Slow) -> Standing:
    quota = more.quota or Consumption(used={})
    return msgspec.structs.replace(
        row,
        lag=more.lag,
        quota=quota.used or None,
        quota_percent=quota.percent,
        quota_name=quota.name,
    )


async def _ask(bus: Bus, ask: TallyAsk) -> list[Tallies]:
    found = []
    for answer in await bus.gather(TALLIES, codec.encode(ask), wait=_WAIT):
        try:
            found.append(_decode(answer.data))
        except msgspec.MsgspecError:
            continue  # a version that knows less than we ask
    return found


def _first(told: Iterable[Tallies], by: TallyColumn, limit: int) -> list[str]:
    values: dict[str, float] = defaultdict(float)
    for each in told:
        for tally in each.tenants:
            if tally.tenant == OTHERS:
                continue
            if by == "latency":
                slowest = quantile(tally.latency, 0.99) or 0.0
                values[tally.tenant] = max(values[tally.tenant], slowest)
            elif by == "rate" and each.service != _ROUTER:
                values[tally.tenant] += tally.sent  # its own rate is of what it handled
            else:
                values[tally.tenant] += getattr(tally, by)
    found = [name for name, value in values.items() if value > 0]
    return sorted(found, key=lambda name: (-values[name], name))[:limit]


def _sum(tenant: str, parts: Sequence[tuple[bool, TenantTally]]) -> Standing:
    edge = [tally for routed, tally in parts if routed]
    inside = [tally for routed, tally in parts if not routed]
    refused: Counter[str] = Counter()
    for tally in edge:
        refused.update(tally.refused)
    latency = [
        sum(column) for column in zip_longest(*(each.latency for each in inside), fillvalue=0)
    ]
    sent = sum(each.sent for each in inside)
    return Standing(
        tenant=tenant,
        rate=round(sum(each.rate for each in edge) + sent, 3),
        sent=round(sent, 3),
        limited=round(sum(each.limited for each in edge), 3),
        errors=round(sum(tally.errors for _, tally in parts), 3),
        running=sum(each.running for each in inside),
        handled=round(sum(each.rate for each in inside), 3),
        p50_ms=_milliseconds(quantile(latency, 0.5)),
        p99_ms=_milliseconds(quantile(latency, 0.99)),
        refused=dict(refused),
    )


def _value(row: Standing, by: Column) -> float:
    names: dict[Column, str] = {"latency": "p99_ms", "quota": "quota_percent"}
    return float(getattr(row, names.get(by, by)) or 0.0)


def _milliseconds(seconds: float | None) -> float | None:
    """JSON has no infinity: beyond the last bound it is that bound."""
    if seconds is None:
        return None
    return round(min(seconds, LATENCIES[-1]) * 1000, 3)
