"""Tenants in their bucket, as the control plane sets it up."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tenantry.bus import Bucket, Bus
from tenantry.bus import jetstream as js
from tenantry.errors import Conflict, NotFound, Unavailable
from tenantry.messages import SHIPPED_PLANS, Plan, Tenant
from tenantry.runtime.config import MeshConfig
from tenantry.streams import (
    AUDIT,
    BUCKETS,
    DEAD,
    JOURNAL,
    SCHEDULES,
    TIMERS,
    JournalLimits,
)
from tenantry_workers.tenants import store as stores
from tenantry_workers.tenants.provision import provision
from tenantry_workers.tenants.store import TenantStore, next_record
from tests.unit.bus.station import fresh


@pytest.fixture
async def store(bus: Bus) -> TenantStore:
    await provision(bus, MeshConfig())
    return TenantStore(bus)


def tenant(**fields: Any) -> Tenant:
    common = {"id": fresh("tenant"), "plan": "standard", "created": 1.0, "updated": 1.0}
    return Tenant(**(common | fields))


# setting up


async def test_all_that_the_mesh_keeps_is_set_up(bus: Bus, store: TenantStore) -> None:
    for name in (JOURNAL, DEAD, SCHEDULES, TIMERS, AUDIT, *(f"KV_{bucket}" for bucket in BUCKETS)):
        assert (await js.api(bus, f"STREAM.INFO.{name}"))["config"]["name"] == name


async def test_the_plans_that_ship_are_there(bus: Bus, store: TenantStore) -> None:
    plans = Bucket(bus, "plans", Plan)
    for plan in SHIPPED_PLANS:
        entry = await plans.get(plan.name)
        assert entry is not None


async def test_an_operators_own_plan_stays(bus: Bus, store: TenantStore) -> None:
    plans = Bucket(bus, "plans", Plan)
    own = Plan(name="premium", rate=7.0)
    await plans.put("premium", own)
    await provision(bus, MeshConfig())
    entry = await plans.get("premium")
    assert entry is not None
    assert entry.value == own


async def test_several_may_set_up_at_once(bus: Bus) -> None:
    await asyncio.gather(*(provision(bus, MeshConfig()) for _ in range(4)))


async def test_a_changed_configuration_is_applied(bus: Bus, store: TenantStore) -> None:
    await provision(bus, MeshConfig(journal=JournalLimits(max_message=5000)))
    config = (await js.api(bus, f"STREAM.INFO.{JOURNAL}"))["config"]
    await provision(bus, MeshConfig())
    assert config["max_msg_size"] == 5000


# creating


async def test_a_tenant_is_created(store: TenantStore) -> None:
    made = tenant()
    created, revision = await store.create(made)
    assert (created, await store.get(made.id)) == (made, made)
    assert revision > 0


async def test_an_id_is_used_once(store: TenantStore) -> None:
    made = tenant()
    await store.create(made)
    with pytest.raises(Conflict, match="exists already"):
        await store.create(made)


async def test_of_many_who_create_one_tenant_one_does(store: TenantStore) -> None:
    made = tenant()
    results = await asyncio.gather(*(store.create(made) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 7


async def test_the_id_of_a_deleted_tenant_is_not_used_again(store: TenantStore) -> None:
    """Backups, exports and logs name it, also after an erasure."""
    made = tenant()
    await store.create(made)
    await store.change(made.id, lambda old: next_record(old, "deleted", state="deleted"))
    with pytest.raises(Conflict, match="was deleted, and no id is given out again"):
        await store.create(made)


async def test_a_tenant_has_a_plan_that_exists(store: TenantStore) -> None:
    with pytest.raises(NotFound, match="no plan 'nowhere'"):
        await store.create(tenant(plan="nowhere"))


async def test_who_is_not_there_is_told(store: TenantStore) -> None:
    with pytest.raises(NotFound, match="no tenant 'nobody'"):
        await store.get("nobody")
    with pytest.raises(NotFound, match="no tenant 'nobody'"):
        await store.change("nobody", lambda old: old)


# changing


async def test_a_change_is_one_revision(store: TenantStore) -> None:
    made = tenant()
    _, first = await store.create(made)
    changed, second = await store.change(made.id, lambda old: next_record(old, "resumed"))
    assert await store.get(made.id) == changed
    assert second > first


async def test_no_change_is_no_revision(store: TenantStore) -> None:
    made = tenant()
    await store.create(made)
    assert await store.change(made.id, lambda _: None) == (made, 0)


async def test_a_deleted_tenant_changes_no_more(store: TenantStore) -> None:
    made = tenant()
    await store.create(made)
    await store.change(made.id, lambda old: next_record(old, "deleted", state="deleted"))
    with pytest.raises(Conflict, match="is deleted"):
        await store.change(made.id, lambda old: next_record(old, "resumed", state="active"))


async def test_changes_at_once_are_all_made(store: TenantStore) -> None:
    made = tenant(created=0.0)
    await store.create(made)

    def count(old: Tenant) -> Tenant:
        return msgspec.structs.replace(old, created=old.created + 1)

    await asyncio.gather(*(store.change(made.id, count) for _ in range(6)))
    assert (await store.get(made.id)).created == 6


async def test_who_is_always_too_late_gives_up(
    store: TenantStore, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, attempts = tenant(), []
    await store.create(made)
    monkeypatch.setattr(stores, "_ATTEMPTS", 3)
    bucket = Bucket(bus, "tenants", Tenant)

    class Racing(Bucket[Tenant]):
        """Somebody else is always a little quicker."""

        async def update(self, key: str, value: Tenant, revision: int) -> int:
            attempts.append(revision)
            await bucket.put(key, made)
            return await super().update(key, value, revision)

    store._tenants = Racing(bus, "tenants", Tenant)
    with pytest.raises(Unavailable, match="keeps changing"):
        await store.change(made.id, lambda old: next_record(old, "resumed"))
    assert len(attempts) == 3
