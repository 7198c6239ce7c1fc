"""What the journal has of one tenant, read by a service's own consumer, or by two at once."""

from __future__ import annotations

import pytest

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.runtime.config import MeshConfig
from tenantry.runtime.past import Past
from tenantry_workers.tenants.provision import provision
from tests.unit.bus.station import Station, fresh


@pytest.fixture
async def tenant(bus: Bus) -> str:
    """A tenant with three messages."""
    await provision(bus, MeshConfig())
    name = fresh("past")
    for _ in range(3):
        await js.store(bus, f"tenant.{name}.orders.place", b"{}")
    return name


@pytest.fixture
async def past(station: Station, tenant: str) -> Past:
    """As a worker of the service orders has it."""
    return Past(await station.connect("service", "orders"), "orders", subjects.partition(tenant))


async def names(bus: Bus) -> set[str]:
    found = await js.api(bus, "CONSUMER.NAMES.JOURNAL")
    return set(found["consumers"] or ())


async def test_it_is_read_by_the_consumer_that_the_role_may_make(
    bus: Bus, past: Past, tenant: str
) -> None:
    async with past.read(tenant, first=1, ahead=8) as messages:
        first = await anext(messages)
        assert first.subject.endswith(f".{tenant}.orders.place")
        assert f"orders-read-{subjects.partition(tenant)}" in await names(bus)
        assert len([each async for each in messages]) == 2


async def test_a_second_one_at_the_same_time_reads_all_as_well(past: Past, tenant: str) -> None:
    async with past.read(tenant, first=1, ahead=8) as one:
        await anext(one)
        async with past.read(tenant, first=1, ahead=8) as two:
            assert len([each async for each in two]) == 3
        assert len([each async for each in one]) == 2


async def test_the_consumer_is_free_again_afterwards(bus: Bus, past: Past, tenant: str) -> None:
    for _ in range(2):
        async with past.read(tenant, first=1, ahead=8) as messages:
            assert len([each async for each in messages]) == 3
    assert f"orders-read-{subjects.partition(tenant)}" not in await names(bus)


async def test_one_that_a_former_reader_has_left_is_taken_over(
    station: Station, past: Past, tenant: str
) -> None:
    partition = subjects.partition(tenant)
    name = f"orders-read-{partition}"
    left = {"name": name, "filter_subject": f"journal.{partition}.>", "ack_policy": "none"}
    other = await station.connect("service", "orders")
    await js.api(
        other,
        f"CONSUMER.CREATE.JOURNAL.{name}.journal.{partition}.>",
        {"stream_name": "JOURNAL", "config": left},
    )
    async with past.read(tenant, first=1, ahead=8) as messages:
        assert len([each async for each in messages]) == 3
