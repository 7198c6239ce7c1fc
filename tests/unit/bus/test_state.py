"""What a service keeps for a tenant: each service and each tenant has its own place."""

from __future__ import annotations

import pytest
from msgspec import Struct

from tenantry.bus import Bus, Entry
from tenantry.bus import jetstream as js
from tenantry.bus.kv import Record
from tenantry.context import state as states
from tenantry.context.state import BUCKET, State
from tenantry.errors import Conflict
from tenantry.streams import bucket_config
from tests.unit.bus.station import fresh


class Basket(Struct, frozen=True):
    items: tuple[str, ...] = ()


@pytest.fixture
async def state(bus: Bus) -> State:
    await js.ensure_stream(bus, bucket_config(BUCKET))
    return State(bus, fresh("tenant"), "orders")


async def test_what_is_put_is_got_as_its_type(state: State) -> None:
    revision = await state.put("basket", Basket(("a",)))
    assert await state.get("basket", Basket) == Entry(Basket(("a",)), revision)


async def test_what_is_not_there_is_none(state: State) -> None:
    assert await state.get("basket", Basket) is None


async def test_a_name_is_created_once(state: State) -> None:
    await state.create("basket", Basket())
    with pytest.raises(Conflict):
        await state.create("basket", Basket())


async def test_only_the_revision_that_was_seen_is_updated(state: State) -> None:
    seen = await state.create("basket", Basket())
    await state.update("basket", Basket(("a",)), seen)
    with pytest.raises(Conflict):
        await state.update("basket", Basket(("b",)), seen)


async def test_what_is_deleted_is_gone(state: State) -> None:
    await state.put("basket", Basket())
    await state.delete("basket")
    assert await state.get("basket", Basket) is None


async def test_another_tenant_and_another_service_see_nothing_of_it(bus: Bus, state: State) -> None:
    tenant = fresh("tenant")
    mine = State(bus, tenant, "orders")
    await mine.put("basket", 1)
    assert await State(bus, fresh("tenant"), "orders").get("basket", int) is None
    assert await State(bus, tenant, "billing").get("basket", int) is None
    assert await State(bus, tenant, "orders").get("basket", int) is not None


# two at the same name


class Raced(State):
    """Somebody else writes after each look."""

    other: State
    times = 1

    async def _read(self, key: str) -> Record | None:
        record = await super()._read(key)
        if self.times:
            self.times -= 1
            await self.other.put("basket", Basket(("theirs",)))
        return record


@pytest.fixture
async def raced(bus: Bus, state: State) -> Raced:
    tenant = fresh("tenant")
    raced = Raced(bus, tenant, "orders")
    raced.other = State(bus, tenant, "orders")
    return raced


async def test_a_put_wins_after_another_write(raced: Raced) -> None:
    await raced.put("basket", Basket(("mine",)))
    assert await raced.other.get("basket", Basket) == await raced.get("basket", Basket)


async def test_a_delete_wins_after_another_write(raced: Raced) -> None:
    await raced.other.put("basket", Basket())
    await raced.delete("basket")
    assert await raced.other.get("basket", Basket) is None


async def test_what_changes_all_the_time_is_a_conflict(
    raced: Raced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "_TRIES", 2)
    raced.times = 100
    with pytest.raises(Conflict):
        await raced.put("basket", Basket())
    with pytest.raises(Conflict):
        await raced.delete("basket")


async def test_who_knows_the_revision_need_not_have_read_it(bus: Bus, state: State) -> None:
    tenant = fresh("tenant")
    seen = await State(bus, tenant, "orders").create("basket", Basket())
    assert await State(bus, tenant, "orders").update("basket", Basket(("a",)), seen) > seen


async def test_what_is_not_there_can_be_deleted(state: State) -> None:
    await state.delete("nothing")
    assert await state.get("nothing", Basket) is None


async def test_a_fence_that_is_no_number_is_none(state: State) -> None:
    await state._bucket.write(state._prefix + "odd", b"1", 0, {"Tenant-Fence": "x"})
    entry = await state.get("odd", int)
    assert entry is not None
    assert entry.value == 1
