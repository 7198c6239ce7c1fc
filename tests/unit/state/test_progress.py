"""How far a tenant's messages are settled, by what its state says."""

from __future__ import annotations

import time

import pytest

from tenantry import Context
from tenantry.bus import Bus
from tenantry.bus.scan import find_next
from tenantry.context.latest import Latest
from tenantry.runtime.progress import settled_up_to
from tests.unit.state.handling import Handling


@pytest.fixture
async def handling(bus: Bus) -> Handling:
    return await Handling.make(bus)


async def progress(
    handling: Handling, generation: int = 0, epoch: int = 0, *, since: float = 0.0
) -> int:
    found = settled_up_to(Latest(handling.bus), handling.tenant, "orders", generation, epoch, since)
    return await found


async def two(ctx: Context) -> None:
    await ctx.state.put("a", 1)
    await ctx.state.put("b", 1)


async def test_a_tenant_without_state_has_not_come_far(handling: Handling) -> None:
    assert await progress(handling) == 0


async def test_it_is_the_latest_message_that_has_written(handling: Handling) -> None:
    for seq in (5, 7):
        await handling.handle(seq, handling.add)
    assert await progress(handling) == 7


async def test_a_redo_record_counts(handling: Handling) -> None:
    await handling.handle(5, two)
    for name in "ab":
        await handling.state()._bucket.write(f"{handling.tenant}.orders.{name}", b"1")
    assert await progress(handling) == 5


async def test_a_deletion_counts(handling: Handling) -> None:
    async def forget(ctx: Context) -> None:
        await ctx.state.delete("count")

    await handling.handle(5, handling.add)
    await handling.handle(6, forget)
    assert await progress(handling) == 6


async def test_a_request_does_not_count(handling: Handling) -> None:
    await handling.state().put("x", 1)
    assert await progress(handling) == 0


async def test_another_epoch_does_not_count(handling: Handling) -> None:
    await handling.handle(9, two)
    await handling.handle(3, handling.add, epoch=1)
    assert (await progress(handling, epoch=1), await progress(handling)) == (3, 9)


async def test_another_namespace_does_not_count(handling: Handling) -> None:
    await handling.handle(5, handling.add)
    await handling.handle(5, two)
    await handling.handle(6, two, generation=1)
    await handling.handle(7, two, generation=11)
    found = [await progress(handling, generation) for generation in (0, 1, 11, 2)]
    assert found == [5, 6, 7, 0]


async def test_another_tenant_does_not_count(handling: Handling, bus: Bus) -> None:
    other = await Handling.make(bus)
    await other.handle(9, handling.add)
    assert await progress(handling) == 0


async def test_what_was_written_before_does_not_count(handling: Handling) -> None:
    await handling.handle(5, handling.add)
    assert await progress(handling, since=time.time() + 60) == 0


async def test_what_was_written_since_counts(handling: Handling) -> None:
    await handling.handle(5, handling.add)
    subject = f"$KV.state.{handling.tenant}.orders.count"
    written = await find_next(handling.bus, "KV_state", subject)
    assert written is not None
    assert await progress(handling, since=written.time - 0.001) == 5


@pytest.mark.parametrize("fence", ["odd", "", "-1"])
async def test_a_fence_that_is_no_number_does_not_count(handling: Handling, fence: str) -> None:
    key = f"{handling.tenant}.orders.x"
    await handling.state()._bucket.write(key, b"1", 0, {"Tenant-Fence": fence})
    assert await progress(handling) == 0
