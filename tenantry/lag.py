"""Lag: what waits in the journal, by service and by tenant.

A service reads the journal through consumers `<service>-<number>`; a tenant that is behind is read
apart, from its cursor on. What is told is what the server counts when asked: never ask in a loop.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from tenantry import subjects
from tenantry.bus import Bus, api
from tenantry.bus.scan import find_next, scan
from tenantry.messages import Cursor
from tenantry.streams import DEAD, JOURNAL

_LANE = re.compile(r"([a-z][a-z0-9_]*)-\d+", re.ASCII)
_AT_ONCE = 16
_LOOKED_AT = 200
_decode_cursor = msgspec.json.Decoder(Cursor).decode


class ServiceLag(msgspec.Struct, frozen=True, kw_only=True):
    """How far a service is behind the journal, over all tenants."""

    service: str
    waiting: int
    """Messages that no instance has in hand yet."""
    in_hand: int
    """Messages that were given to an instance and are not settled."""
    behind: int
    """Tenants that are read apart, because a message of theirs is retried or replayed."""
    oldest: float | None
    """Age of the oldest message that waits, seconds."""
    dead: int
    """Dead letters."""


class TenantLag(msgspec.Struct, frozen=True, kw_only=True):
    """How far one tenant is behind in one service."""

    service: str
    waiting: int
    """Messages of the tenant that no instance has in hand yet."""
    dead: int
    """Dead letters."""
    behind: bool = False
    """Whether it is read apart."""
    failed: int = 0
    """How often its first message has failed."""
    code: str = ""
    """Why it failed last."""
    since: float | None = None
    """When it failed first, seconds since the epoch."""
    retry_at: float | None = None


class _Lane(NamedTuple):
    """One consumer of a service."""

    filters: tuple[str, ...]
    delivered: int
    """The last sequence that it has given out."""
    pending: int
    in_hand: int

    def of(self, tenant: str) -> list[str]:
        """Its filters narrowed to one tenant; none where it does not read this tenant."""
        part = str(subjects.partition(tenant))
        narrowed = []
        for each in self.filters:
            _, number, _, name = each.split(".", 3)
            if number == part:
                narrowed.append(subjects.stored_of(tenant, name))
        return narrowed


class _Backlog(NamedTuple):
    """What a stream holds on some subjects from some sequence on."""

    messages: int = 0
    oldest: float | None = None
    """When the first of them was stored."""


async def services(bus: Bus) -> list[ServiceLag]:
    """The lag of every service that reads the journal, by name.

    `bus` needs the role `control`. Raises :class:`~tenantry.errors.Unavailable`.
    """
    found, cursors = await asyncio.gather(_lanes(bus), _cursors(bus))
    behind: dict[str, dict[str, Cursor]] = defaultdict(dict)
    for (service, tenant), cursor in cursors.items():
        if cursor.behind:
            behind[service][tenant] = cursor
    return list(
        await asyncio.gather(
            *(_service(bus, name, found[name], behind[name]) for name in sorted(found))
        )
    )


async def tenant(bus: Bus, name: str) -> list[TenantLag]:
    """The lag of one tenant in every service that reads the journal, by the service's name.

    `bus` needs the role `control`. Raises :class:`~tenantry.errors.Unavailable`, and
    :class:`~tenantry.errors.BadSubject` for what is no tenant id.
    """
    return (await tenants(bus, [name]))[name]


async def tenants(bus: Bus, names: Sequence[str]) -> dict[str, list[TenantLag]]:
    """The lag of some tenants, each as :func:`tenant` tells it; cheaper than one after another."""
    for name in names:
        subjects.check_tenant(name)
    found, gate = await _lanes(bus), asyncio.Semaphore(_AT_ONCE)

    async def one(name: str) -> list[TenantLag]:
        async with gate:
            return await _in_services(bus, name, found)

    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


async def longest(bus: Bus, limit: int) -> list[str]:
    """The tenants with most messages that wait, the most first; none of whom nothing waits.

    It looks at those that are read apart, and at the 200 of whom the journal holds most on what a
    service has not read to its end. Raises :class:`~tenantry.errors.Unavailable`.
    """
    found, cursors = await asyncio.gather(_lanes(bus), _cursors(bus))
    behind = dict.fromkeys(name for (_, name), cursor in cursors.items() if cursor.behind)
    filters = {
        each for lanes in found.values() for lane in lanes if lane.pending for each in lane.filters
    }
    stored = Counter[str]()
    for counts in await asyncio.gather(*(_stored(bus, each) for each in sorted(filters))):
        stored.update(counts)
    some = dict.fromkeys(name for name, _ in stored.most_common(_LOOKED_AT))
    lags = await tenants(bus, [*(behind | some)])
    waiting = {name: sum(each.waiting for each in of) for name, of in lags.items()}
    names = sorted((name for name in waiting if waiting[name]), key=lambda n: (-waiting[n], n))
    return names[:limit]


async def _stored(bus: Bus, subject: str) -> Counter[str]:
    """How many messages the journal holds on a subject, by tenant."""
    info = await api(bus, f"STREAM.INFO.{JOURNAL}", {"subjects_filter": subject})
    counts = Counter[str]()
    for name, count in (info["state"].get("subjects") or {}).items():
        counts[name.split(".")[2]] += count
    return counts


async def _in_services(
    bus: Bus, name: str, found: Mapping[str, Sequence[_Lane]]
) -> list[TenantLag]:
    cursors = await _cursors(bus, tenant=name)
    return list(
        await asyncio.gather(
            *(
                _tenant(bus, service, name, found[service], cursors.get((service, name)))
                for service in sorted(found)
            )
        )
    )


async def _service(
    bus: Bus, name: str, lanes: Sequence[_Lane], behind: Mapping[str, Cursor]
) -> ServiceLag:
    waiting, oldest = 0, []
    for lane in lanes:
        waiting += lane.pending
        if lane.pending:
            oldest.append((await _backlog(bus, JOURNAL, lane.filters, lane.delivered + 1)).oldest)
    gate = asyncio.Semaphore(_AT_ONCE)
    for passed in await asyncio.gather(
        *(_passed(bus, gate, lane, *each) for lane in lanes for each in behind.items())
    ):
        waiting += passed.messages
        oldest.append(passed.oldest)
    stored = min((each for each in oldest if each is not None), default=None)
    return ServiceLag(
        service=name,
        waiting=waiting,
        in_hand=sum(lane.in_hand for lane in lanes),
        behind=len(behind),
        oldest=None if stored is None else round(max(0.0, time.time() - stored), 3),
        dead=(await _backlog(bus, DEAD, [f"dead.*.{name}.*"], 1)).messages,
    )


async def _tenant(
    bus: Bus, service: str, name: str, lanes: Sequence[_Lane], cursor: Cursor | None
) -> TenantLag:
    waiting = 0
    for lane in lanes:
        if filters := lane.of(name):
            first = cursor.next if cursor and cursor.behind else lane.delivered + 1
            waiting += (await _backlog(bus, JOURNAL, filters, first)).messages
    dead = (await _backlog(bus, DEAD, [f"dead.{name}.{service}.*"], 1)).messages
    lag = TenantLag(service=service, waiting=waiting, dead=dead)
    if cursor is None:
        return lag
    return msgspec.structs.replace(
        lag,
        behind=cursor.behind,
        failed=cursor.failed,
        code=cursor.code if cursor.failed else "",
        since=cursor.first_failed if cursor.failed else None,
        retry_at=cursor.retry_at if cursor.failed else None,
    )


async def _passed(
    bus: Bus, gate: asyncio.Semaphore, lane: _Lane, tenant: str, cursor: Cursor
) -> _Backlog:
    """What a lane has passed over because its tenant is behind."""
    if not (filters := lane.of(tenant)):
        return _Backlog()
    async with gate:
        all_of_it = await _backlog(bus, JOURNAL, filters, cursor.next)
        to_come = _Backlog()
        if lane.pending:
            to_come = await _backlog(bus, JOURNAL, filters, lane.delivered + 1)
    return all_of_it._replace(messages=max(0, all_of_it.messages - to_come.messages))


# --- asking the server ---------------------------------------------------------------------------


async def _lanes(bus: Bus) -> dict[str, list[_Lane]]:
    """The consumers of each service."""
    found: dict[str, list[_Lane]] = defaultdict(list)
    offset, total = 0, 1
    while offset < total:
        page = await api(bus, f"CONSUMER.LIST.{JOURNAL}", {"offset": offset})
        consumers = page.get("consumers") or []
        for info in consumers:
            config = info["config"]
            match = _LANE.fullmatch(config.get("durable_name", ""))
            if match is not None:
                found[match[1]].append(_lane(info))
        total = page["total"] if consumers else 0
        offset += len(consumers)
    return found


def _lane(info: Mapping[str, Any]) -> _Lane:
    config = info["config"]
    filters: Iterable[str] = config.get("filter_subjects") or [config.get("filter_subject", "")]
    return _Lane(
        filters=tuple(each for each in filters if each.count(".") == 4),
        delivered=info["delivered"]["stream_seq"],
        pending=info["num_pending"],
        in_hand=info["num_ack_pending"],
    )


async def _cursors(bus: Bus, *, tenant: str = "*") -> dict[tuple[str, str], Cursor]:
    """The cursors there are, by service and tenant."""
    found = {}
    async for each in scan(bus, "KV_cursors", f"$KV.cursors.*.{tenant}"):
        if "KV-Operation" not in each.headers:
            _, _, service, whose = each.subject.split(".")
            with suppress(msgspec.MsgspecError):
                found[service, whose] = _decode_cursor(each.data)
    return found


async def _backlog(bus: Bus, stream: str, filters: Iterable[str], first: int) -> _Backlog:
    """Each message that the server hands out tells how many are behind it on its filter."""
    asked = (find_next(bus, stream, each, first=first) for each in filters)
    found = [each for each in await asyncio.gather(*asked) if each is not None]
    return _Backlog(
        messages=sum(each.pending + 1 for each in found),
        oldest=min((each.time for each in found), default=None),
    )
