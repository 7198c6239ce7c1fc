"""Where commands for later are kept."""

from __future__ import annotations

import pytest

from tenantry import schedules
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.errors import BadSubject, JetStreamError, NotFound
from tenantry.runtime.config import MeshConfig
from tenantry.schedules import Kept
from tenantry.streams import SCHEDULES, ScheduleLimits
from tenantry_workers.tenants.provision import provision
from tests.unit.bus.station import fresh

ONE, TWO = "1" * 32, "2" * 32


@pytest.fixture
async def kept(bus: Bus) -> Bus:
    await provision(bus, MeshConfig())
    return bus


async def put(bus: Bus, tenant: str, name: str, due: int = 1000, body: bytes = b"{}") -> None:
    fields = {"Tenant-Command": "orders.remind", "Tenant-Due": str(due)}
    await js.store(bus, f"schedule.{tenant}.orders.{name}", body, headers=fields)


async def test_a_full_one_refuses_and_forgets_nothing(kept: Bus) -> None:
    tenant = fresh("tenant")
    await put(kept, tenant, ONE)
    size = (await js.api(kept, f"STREAM.INFO.{SCHEDULES}"))["state"]["bytes"]
    await provision(kept, MeshConfig(schedules=ScheduleLimits(max_bytes=size + 10_000)))
    with pytest.raises(JetStreamError, match="maximum bytes"):
        await put(kept, tenant, TWO, body=b"x" * 20_000)
    assert [each.id for each in await schedules.find(kept, tenant)] == [ONE]
    await provision(kept, MeshConfig())
    await put(kept, tenant, TWO, body=b"x" * 20_000)
    assert [each.id for each in await schedules.find(kept, tenant)] == [ONE, TWO]


async def test_a_second_under_the_same_id_takes_the_place_of_the_first(kept: Bus) -> None:
    tenant = fresh("tenant")
    await put(kept, tenant, ONE, body=b"1")
    await put(kept, tenant, ONE, body=b"2")
    assert (await schedules.get(kept, tenant, ONE)).body == b"2"
    assert len(await schedules.find(kept, tenant)) == 1


async def test_what_it_takes_the_journal_takes_too(kept: Bus) -> None:
    tenant = fresh("tenant")
    limit = MeshConfig().journal.max_message
    fields = {"Tenant-Command": "orders.remind", "Tenant-Context": "c" * 500, "Tenant-Due": "1"}
    with pytest.raises(JetStreamError, match="size exceeds"):
        await js.store(
            kept, f"schedule.{tenant}.orders.{ONE}", b"x" * (limit - 1024), headers=fields
        )


async def test_those_of_a_tenant_are_found_in_the_order_of_their_times(kept: Bus) -> None:
    tenant = fresh("tenant")
    await put(kept, tenant, ONE, due=2000)
    await put(kept, tenant, TWO, due=1000)
    await put(kept, fresh("tenant"), TWO)
    assert [(each.id, each.due) for each in await schedules.find(kept, tenant)] == [
        (TWO, 1.0),
        (ONE, 2.0),
    ]


async def test_more_than_one_pull_takes_are_found(kept: Bus) -> None:
    tenant = fresh("tenant")
    for number in range(600):
        await put(kept, tenant, f"{number:032x}", due=number)
    found = [each.id for each in await schedules.find(kept, tenant)]
    assert found == [f"{number:032x}" for number in range(600)]


async def test_a_cancelled_one_is_not_there_any_more(kept: Bus) -> None:
    tenant = fresh("tenant")
    await put(kept, tenant, ONE)
    await put(kept, tenant, TWO)
    subject = f"schedule.{tenant}.orders.{ONE}"
    await js.store(kept, subject, b"", headers={"Nats-TTL": "1s"})  # as a service cancels
    assert await schedules.read(kept, subject) is None
    assert [each.id for each in await schedules.find(kept, tenant)] == [TWO]
    await schedules.cancel(kept, tenant, TWO)  # as an operator does
    assert await schedules.find(kept, tenant) == []


async def test_dropping_what_was_read_leaves_what_took_its_place(kept: Bus) -> None:
    tenant = fresh("tenant")
    await put(kept, tenant, ONE)
    first = await schedules.get(kept, tenant, ONE)
    await put(kept, tenant, ONE, body=b"2")
    await schedules.drop(kept, first)
    second: Kept = await schedules.get(kept, tenant, ONE)
    assert second.body == b"2"
    for _ in range(2):  # also what is gone already
        await schedules.drop(kept, second)
    assert await schedules.find(kept, tenant) == []


async def test_what_is_not_there_is_told(kept: Bus) -> None:
    tenant = fresh("tenant")
    await put(kept, tenant, ONE)
    with pytest.raises(NotFound):
        await schedules.get(kept, tenant, TWO)
    with pytest.raises(NotFound):
        await schedules.cancel(kept, tenant, TWO)
    assert (await schedules.get(kept, tenant, ONE)).schedule.command == "orders.remind"


@pytest.mark.parametrize("name", ["*", ">", "", "1" * 31, "a.b"])
async def test_an_id_is_no_wildcard(kept: Bus, name: str) -> None:
    with pytest.raises(BadSubject):
        await schedules.get(kept, "acme", name)
    with pytest.raises(BadSubject):
        await schedules.cancel(kept, "acme", name)


@pytest.mark.parametrize("tenant", ["*", ">", "", "a.b"])
async def test_a_tenant_is_no_wildcard_where_something_goes(kept: Bus, tenant: str) -> None:
    with pytest.raises(BadSubject):
        await schedules.erase(kept, tenant)
    with pytest.raises(BadSubject):
        await schedules.cancel(kept, tenant, ONE)


async def test_erasing_counts_what_there_was(kept: Bus) -> None:
    tenant = fresh("tenant")
    assert await schedules.erase(kept, tenant) == 0
    await put(kept, tenant, ONE)
    await put(kept, tenant, TWO)
    assert await schedules.erase(kept, tenant) == 2
