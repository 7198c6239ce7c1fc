"""The bucket of suspended tenants follows their records."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tenantry.bus import Bucket, Bus, Table
from tenantry.messages import Suspension, Tenant
from tenantry.runtime.config import MeshConfig
from tenantry_workers.tenants.provision import provision
from tenantry_workers.tenants.suspensions import Suspensions
from tests.unit.bus.station import fresh


@pytest.fixture
async def tenants(bus: Bus) -> Table[Tenant]:
    await provision(bus, MeshConfig())
    return Table(Bucket(bus, "tenants", Tenant))


def tenant(**fields: Any) -> Tenant:
    common = {"id": fresh("tenant"), "plan": "standard", "created": 1.0, "updated": 2.0}
    return Tenant(**(common | fields))


async def row(bus: Bus, record: Tenant) -> Suspension | None:
    entry = await Bucket(bus, "suspended", Suspension).get(record.id)
    return entry.value if entry is not None else None


async def known(bus: Bus, tenants: Table[Tenant], record: Tenant) -> None:
    """The record is stored, and the worker knows it."""
    await Bucket(bus, "tenants", Tenant).put(record.id, record)
    tenants.rows[record.id] = record


async def test_one_that_was_suspended_before_there_was_the_bucket_is_in_it(
    bus: Bus, tenants: Table[Tenant]
) -> None:
    old, active = tenant(state="suspended", change="plan_changed"), tenant()
    await known(bus, tenants, old)
    await known(bus, tenants, active)
    for _ in range(2):  # each replica, each start
        await Suspensions(bus, tenants).start()
    assert await row(bus, old) == Suspension(since=2.0)
    assert await row(bus, active) is None


async def test_one_that_was_resumed_meanwhile_is_not(bus: Bus, tenants: Table[Tenant]) -> None:
    old = tenant(state="suspended", change="suspended")
    await known(bus, tenants, old)
    resumed = msgspec.structs.replace(old, state="active", change="resumed")
    await Bucket(bus, "tenants", Tenant).put(old.id, resumed)
    await Suspensions(bus, tenants).start()
    assert await row(bus, old) is None


@pytest.mark.parametrize("change", ["resumed", "deleted"])
async def test_it_is_in_the_bucket_until_it_is_resumed_or_deleted(
    bus: Bus, tenants: Table[Tenant], change: Any
) -> None:
    suspensions, record = Suspensions(bus, tenants), tenant(change="suspended")
    await suspensions.follow(record)
    assert await row(bus, record) == Suspension(since=2.0)
    await suspensions.follow(msgspec.structs.replace(record, change="plan_changed"))
    assert await row(bus, record) == Suspension(since=2.0)
    await suspensions.follow(msgspec.structs.replace(record, change=change))
    assert await row(bus, record) is None
