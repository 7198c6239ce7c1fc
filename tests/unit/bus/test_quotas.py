"""Quotas of a day or month: exact over all routers, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import pytest

from tenantry.bus import Bucket, Bus
from tenantry.messages import Count, Quota, Usage
from tenantry.runtime.config import MeshConfig
from tenantry_workers.router import quotas as module
from tenantry_workers.router.quotas import Quotas, Verdict
from tenantry_workers.tenants.provision import provision
from tests.unit.bus.station import Station, fresh

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC).timestamp()
MIDNIGHT = dt.datetime(2026, 11, 22, tzinfo=dt.UTC).timestamp()


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Routers:
    """Several routers with connections of their own, in one process."""

    def __init__(self, buses: list[Bus], clock: Clock) -> None:
        self.clock = clock
        self.all = [Quotas(bus, routers=lambda: len(buses), clock=clock) for bus in buses]
        self.usage = Bucket(buses[0], "usage", Usage)
        self.tenant = fresh("tenant")

    async def send(self, *limits: Quota, router: int = 0, tenant: str = "") -> Verdict:
        """One message."""
        quotas, name = self.all[router], tenant or self.tenant
        verdict = quotas.take(name, limits)
        if verdict is not None:
            return verdict
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        quotas.park(name, limits, answer.set_result)
        async with asyncio.timeout(20):
            return await answer

    async def admitted(self, count: int, *limits: Quota, router: int = 0) -> int:
        """How many of so many messages, one after another, get in."""
        verdicts = [await self.send(*limits, router=router) for _ in range(count)]
        return sum(verdict.refused is None for verdict in verdicts)

    async def give_back(self) -> None:
        """As after a while without messages."""
        for quotas in self.all:
            await quotas.quiet()
            await quotas.give_back(idle=0.0)

    async def row(self, quota: Quota) -> Count:
        entry = await self.usage.get(self.tenant)
        return entry.value.counts.get(quota.name, Count()) if entry is not None else Count()


@pytest.fixture
async def routers(station: Station) -> AsyncIterator[Routers]:
    buses = [await station.connect() for _ in range(3)]
    await provision(buses[0], MeshConfig())
    routers = Routers(buses, Clock())
    yield routers
    for quotas in routers.all:
        await quotas.stop()


def day(amount: int, **fields: object) -> Quota:
    return Quota(period="day", amount=amount, **fields)  # type: ignore[arg-type]


async def test_exactly_the_quota_gets_in(routers: Routers) -> None:
    assert await routers.admitted(30, day(20)) == 20


async def test_over_several_routers_too(routers: Routers) -> None:
    quota = day(100)
    counts = await asyncio.gather(*(routers.admitted(60, quota, router=each) for each in range(3)))
    await routers.give_back()
    assert sum(counts) + await routers.admitted(60, quota) == 100


async def test_one_router_can_use_what_the_others_do_not(routers: Routers) -> None:
    quota = day(40)
    await routers.admitted(1, quota, router=1)
    await routers.give_back()
    assert await routers.admitted(50, quota) == 39


async def test_a_burst_gets_in_at_once(routers: Routers) -> None:
    quota = day(1000)
    verdicts = await asyncio.gather(*(routers.send(quota) for _ in range(500)))
    assert all(verdict.refused is None for verdict in verdicts)


async def test_a_burst_is_cut_off_where_the_quota_ends(routers: Routers) -> None:
    quota = day(300)
    verdicts = await asyncio.gather(*(routers.send(quota) for _ in range(500)))
    assert [verdict.refused is None for verdict in verdicts] == [True] * 300 + [False] * 200


async def test_other_tenants_have_quotas_of_their_own(routers: Routers) -> None:
    quota = day(1)
    await routers.admitted(2, quota)
    assert (await routers.send(quota, tenant=fresh("other"))).refused is None


async def test_the_next_day_begins_anew(routers: Routers) -> None:
    quota = day(5)
    assert await routers.admitted(6, quota) == 5
    routers.clock.now = MIDNIGHT
    assert await routers.admitted(6, quota) == 5


async def test_a_refusal_tells_when_the_next_day_begins(routers: Routers) -> None:
    quota = day(1)
    await routers.admitted(1, quota)
    refused = (await routers.send(quota)).refused
    assert refused is not None
    assert (refused.quota, refused.left, refused.reset) == (quota, 0, MIDNIGHT - NOON)


async def test_the_most_specific_one_that_is_used_up_is_named(routers: Routers) -> None:
    both = (day(3), day(3, scope="orders.place"))
    await routers.admitted(3, *both)
    refused = (await routers.send(*both)).refused
    assert refused is not None
    assert refused.quota.name == "orders.place.per-day"


async def test_what_one_quota_refuses_counts_in_none(routers: Routers) -> None:
    wide, narrow = day(100), day(2, scope="orders")
    await routers.admitted(10, wide, narrow)
    await routers.give_back()
    assert (await routers.row(wide)).used == 2


async def test_a_shadow_quota_refuses_nothing_and_is_named(routers: Routers) -> None:
    quota = day(2, shadow=True)
    verdicts = [await routers.send(quota) for _ in range(4)]
    assert [verdict.refused for verdict in verdicts] == [None] * 4
    assert [verdict.shadowed for verdict in verdicts] == [(), (), ("per-day",), ("per-day",)]


async def test_from_soft_to_hard_it_is_between(routers: Routers) -> None:
    quota = day(4, soft=2)
    verdicts = [await routers.send(quota) for _ in range(4)]
    assert [bool(verdict.between) for verdict in verdicts] == [False, False, True, True]


async def test_what_is_left_is_told(routers: Routers) -> None:
    quota = day(10)
    left = [(await routers.send(quota)).tightest for _ in range(3)]
    assert [each.left for each in left if each is not None] == [9, 8, 7]


async def test_a_larger_quota_holds_at_once(routers: Routers) -> None:
    await routers.admitted(3, day(2))
    assert await routers.admitted(3, day(4)) == 2


async def test_what_was_not_used_goes_back(routers: Routers) -> None:
    quota = day(1000)
    await routers.admitted(10, quota)
    assert (await routers.row(quota)).leased > 10
    await routers.give_back()
    row = await routers.row(quota)
    assert (row.leased, row.used) == (10, 10)


async def trickle(routers: Routers, quota: Quota, count: int = 5) -> None:
    """A burst, then a message every three seconds: never idle, never in need of a lease."""
    await asyncio.gather(*(routers.send(quota) for _ in range(200)))
    await routers.all[0].quiet()
    for _ in range(count):
        routers.clock.now += 3
        await routers.send(quota)
        await routers.all[0].quiet()


async def trickle_on(routers: Routers, quota: Quota) -> None:
    for _ in range(3):
        routers.clock.now += 3
        await routers.send(quota)
        await routers.all[0].quiet()
    await routers.all[0].give_back()


async def test_what_is_used_slowly_is_told_too(routers: Routers) -> None:
    quota = day(10_000)
    await trickle(routers, quota)
    assert (await routers.row(quota)).used < 205
    await routers.all[0].give_back()
    assert (await routers.row(quota)).used == 205


async def test_what_it_does_not_need_goes_back(routers: Routers) -> None:
    quota = day(10_000)
    await trickle(routers, quota)
    assert (await routers.row(quota)).leased > 205 + 100
    await routers.all[0].give_back()
    await trickle_on(routers, quota)
    row = await routers.row(quota)
    assert row.leased - row.used <= 10


async def test_what_it_has_kept_it_may_use(routers: Routers) -> None:
    quota = day(210)
    await trickle(routers, quota)
    await routers.all[0].give_back()
    assert await routers.admitted(10, quota) == 5


async def test_a_router_that_is_gone_without_a_word_overshoots_nothing(routers: Routers) -> None:
    quota = day(50)
    first = await routers.admitted(10, quota)  # its lease is lost with it
    second = await routers.admitted(50, quota, router=1)
    assert first + second <= 50


async def test_a_refusal_ends_when_another_router_gives_back(routers: Routers) -> None:
    quota = day(100)
    await routers.admitted(1, quota, router=1)  # holds a few more than it uses
    await routers.admitted(100, quota)
    assert (await routers.send(quota)).refused is not None
    await routers.give_back()
    routers.clock.now += 2 * module._AGAIN
    for _ in range(200):
        verdict = await routers.send(quota)
        if verdict.refused is None:
            break
        await asyncio.sleep(0.01)
    assert verdict.refused is None
