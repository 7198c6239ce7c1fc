"""How far the services are behind the journal: by service, by partition and by tenant.

A service writes down how far it has come in a checkpoint for each partition, about ten times a
second. The server counts the messages beyond it when it is asked, so do not ask in a loop.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tenantry import subjects
from tenantry.backlog import Counter, Progress, Span, read_progress
from tenantry.bus import Bus, api
from tenantry.bus.scan import scan
from tenantry.messages.checkpoints import Open, Why
from tenantry.streams import DEAD, JOURNAL

_AT_ONCE = 16
"""Tenants that are looked at side by side."""

_LOOKED_AT = 200
"""Tenants that :func:`longest` counts exactly."""

_ALIVE = 5.0
"""An instance that has not renewed its lease for so long does not count, seconds."""


class PartitionLag(msgspec.Struct, frozen=True, kw_only=True):
    """How far a service is behind in one partition of the journal."""

    partition: int
    owner: str
    """The lease of the instance that reads it; empty while no instance does."""
    renewed: float | None
    """How long ago the owner has renewed its lease, seconds; None if there is no such lease."""
    read_to: int
    """The partition was read up to this sequence of the journal."""
    floor: int
    """Every message up to this sequence is settled."""
    waiting: int
    in_hand: int
    sidelined: int
    oldest: float | None


class ServiceLag(msgspec.Struct, frozen=True, kw_only=True):
    """How far a service is behind the journal, over all tenants."""

    service: str
    instances: int
    """Instances that may own partitions now."""
    waiting: int
    """Messages that no instance has read yet, and all messages of sidelined tenants."""
    in_hand: int
    """Messages that an instance has read and not settled, without those of sidelined tenants."""
    sidelined: int
    """Tenants whose messages are read apart, for a retry, a backlog or a replay of theirs."""
    oldest: float | None
    """Age of the oldest message that waits, seconds."""
    dead: int
    """Dead letters."""
    partitions: tuple[PartitionLag, ...] = ()


class TenantLag(msgspec.Struct, frozen=True, kw_only=True):
    """How far a service is behind with one tenant."""

    service: str
    waiting: int
    """Messages of the tenant that no instance has read yet; all of them if it is sidelined."""
    dead: int
    """Dead letters."""
    in_hand: int = 0
    """Messages of the tenant that an instance has read and not settled."""
    sidelined: Why = ""
    """Why its messages are read apart; empty if they are not."""
    failed: int = 0
    """How often its first message has failed."""
    code: str = ""
    """Why it failed last."""
    since: float | None = None
    """When it failed first, seconds since the epoch."""
    retry_at: float | None = None
    """When it is tried again, seconds since the epoch; None for at once."""


async def services(bus: Bus) -> list[ServiceLag]:
    """The lag of every service that reads the journal, by name.

    `bus` needs the role `control`. Raises :class:`~tenantry.errors.Unavailable`.
    """
    found, leases = await asyncio.gather(read_progress(bus), _leases(bus))
    counter = Counter(bus)
    return list(
        await asyncio.gather(
            *(_service(counter, name, found[name], leases.get(name, {})) for name in found)
        )
    )


async def tenant(bus: Bus, name: str) -> list[TenantLag]:
    """The lag of one tenant in every service that reads the journal, by the service's name.

    `bus` needs the role `control`. Raises :class:`~tenantry.errors.Unavailable`, and
    :class:`~tenantry.errors.BadSubject` if `name` is not a tenant id.
    """
    return (await tenants(bus, [name]))[name]


async def tenants(bus: Bus, names: Sequence[str]) -> dict[str, list[TenantLag]]:
    """The lag of several tenants. It costs less than one call of :func:`tenant` for each."""
    for name in names:
        subjects.check_tenant(name)
    if not names:
        return {}
    found = await read_progress(bus, {subjects.partition(name) for name in names})
    return await _tenants(bus, names, found)


async def longest(bus: Bus, limit: int) -> list[str]:
    """The tenants with most waiting messages, the most first; none for whom no message waits.

    It counts for all sidelined tenants, and for the 200 of whom the journal holds most messages in
    partitions that a service has not read to the end. Raises
    :class:`~tenantry.errors.Unavailable`.
    """
    found = await read_progress(bus)
    lanes = [lane for of_service in found.values() for lane in of_service]
    sidelined = dict.fromkeys(_whose(name) for lane in lanes for name in lane.sidelined())
    filters = {span.subject for lane in lanes for span in lane.unread()}
    stored = collections.Counter[str]()
    for counts in await asyncio.gather(*(_stored(bus, each) for each in sorted(filters))):
        stored.update(counts)
    some = dict.fromkeys(name for name, _ in stored.most_common(_LOOKED_AT))
    lags = await _tenants(bus, [*(sidelined | some)], found)
    waiting = {name: sum(each.waiting for each in of) for name, of in lags.items()}
    names = sorted((name for name in waiting if waiting[name]), key=lambda n: (-waiting[n], n))
    return names[:limit]


# --- one service ---------------------------------------------------------------------------------


async def _service(
    counter: Counter, name: str, lanes: Sequence[Progress], leases: Mapping[str, float]
) -> ServiceLag:
    now = time.time()
    dead, parts = await asyncio.gather(
        counter.count([Span(f"dead.*.{name}.*", 1, None)], stream=DEAD),
        asyncio.gather(*(_partition(counter, lane, leases, now) for lane in lanes)),
    )
    return ServiceLag(
        service=name,
        instances=sum(now - renewed < _ALIVE for renewed in leases.values()),
        waiting=sum(part.waiting for part in parts),
        in_hand=sum(part.in_hand for part in parts),
        sidelined=sum(part.sidelined for part in parts),
        oldest=max((part.oldest for part in parts if part.oldest is not None), default=None),
        dead=dead.messages,
        partitions=tuple(parts),
    )


async def _partition(
    counter: Counter, lane: Progress, leases: Mapping[str, float], now: float
) -> PartitionLag:
    sidelined = lane.sidelined()
    unread, passed, in_hand = await asyncio.gather(
        counter.count(lane.unread()),
        counter.rows(lane, sidelined.items()),
        counter.rows(lane, lane.in_hand().items()),
    )
    stored = min((each.oldest for each in (unread, passed) if each.oldest is not None), default=now)
    waiting = unread.messages + passed.messages
    owner = lane.record.owner
    renewed = leases.get(owner)
    return PartitionLag(
        partition=lane.partition,
        owner=owner,
        renewed=None if renewed is None else _age(renewed, now),
        read_to=lane.record.read_to,
        floor=lane.floor,
        waiting=waiting,
        in_hand=in_hand.messages,
        sidelined=len({_whose(name) for name in sidelined}),
        oldest=_age(stored, now) if waiting else None,
    )


def _age(then: float, now: float) -> float:
    return round(max(0.0, now - then), 3)


async def _leases(bus: Bus) -> dict[str, dict[str, float]]:
    """When each instance has renewed its lease last, by service and lease."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    async for each in scan(bus, "KV_leases", "$KV.leases.*.*"):
        if "KV-Operation" not in each.headers:
            _, _, service, lease = each.subject.split(".")
            found[service][lease] = each.time
    return found


# --- one tenant ----------------------------------------------------------------------------------


async def _tenants(
    bus: Bus, names: Sequence[str], found: Mapping[str, Sequence[Progress]]
) -> dict[str, list[TenantLag]]:
    counter, gate = Counter(bus), asyncio.Semaphore(_AT_ONCE)

    async def one(name: str) -> list[TenantLag]:
        async with gate:
            part = subjects.partition(name)
            lanes = {
                service: next((lane for lane in found[service] if lane.partition == part), None)
                for service in found
            }
            return list(
                await asyncio.gather(
                    *(_tenant(counter, name, service, lane) for service, lane in lanes.items())
                )
            )

    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


async def _tenant(counter: Counter, name: str, service: str, lane: Progress | None) -> TenantLag:
    dead = await counter.count([Span(f"dead.{name}.{service}.*", 1, None)], stream=DEAD)
    if lane is None:
        return TenantLag(service=service, waiting=0, dead=dead.messages)
    sidelined = _own(name, lane.sidelined())
    unread, passed, in_hand = await asyncio.gather(
        counter.count(lane.unread(name)),
        counter.rows(lane, sidelined.items()),
        counter.rows(lane, _own(name, lane.in_hand()).items()),
    )
    lag = TenantLag(
        service=service,
        waiting=unread.messages + passed.messages,
        in_hand=in_hand.messages,
        dead=dead.messages,
    )
    return lag if not sidelined else _with_reason(lag, sidelined.values())


def _with_reason(lag: TenantLag, rows: Iterable[Open]) -> TenantLag:
    """Tell of the row that has failed most often, or else of the first one."""
    row = max(rows, key=lambda each: (each.failed, -each.next))
    return msgspec.structs.replace(
        lag,
        sidelined=row.why,
        failed=row.failed,
        code=row.code,
        since=row.first_failed or None,
        retry_at=row.retry_at or None,
    )


def _own(tenant: str, rows: Mapping[str, Open]) -> dict[str, Open]:
    return {name: row for name, row in rows.items() if _whose(name) == tenant}


def _whose(name: str) -> str:
    """The tenant of a row of a checkpoint."""
    return name.partition("#")[0]


async def _stored(bus: Bus, subject: str) -> collections.Counter[str]:
    """How many messages the journal holds on a subject, by tenant."""
    info = await api(bus, f"STREAM.INFO.{JOURNAL}", {"subjects_filter": subject})
    counts = collections.Counter[str]()
    for name, count in (info["state"].get("subjects") or {}).items():
        counts[name.split(".")[2]] += count
    return counts
