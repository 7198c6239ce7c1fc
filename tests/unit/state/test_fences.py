"""State refuses what a message writes that comes too late."""

from __future__ import annotations

import pytest

from tenantry import Context
from tenantry.bus import Bus
from tenantry.context.fence import fence_of
from tenantry.errors import LaneLost, Repeated, Superseded
from tests.unit.core.fences import fence
from tests.unit.state.handling import Handling, Work


@pytest.fixture
async def handling(bus: Bus) -> Handling:
    return await Handling.make(bus)


def puts(value: object, name: str = "x") -> Work:
    """A handler that writes one value, whatever is there."""

    async def work(ctx: Context) -> None:
        await ctx.state.put(name, value)

    return work


async def test_a_later_message_writes_over_an_earlier_one(handling: Handling) -> None:
    await handling.handle(5, puts("five"))
    await handling.handle(6, puts("six"))
    assert await handling.value("x") == "six"


async def _get(ctx: Context) -> None:
    await ctx.state.get("x", str)


async def _delete(ctx: Context) -> None:
    await ctx.state.delete("x")


async def _create(ctx: Context) -> None:
    await ctx.state.create("x", "late")


async def _update(ctx: Context) -> None:
    await ctx.state.update("x", "late", 1)


async def _names(ctx: Context) -> None:
    await ctx.state.names()


@pytest.mark.parametrize("late", [puts("late"), _get, _delete, _create, _update, _names])
async def test_an_earlier_message_is_refused_what_a_later_one_has_written(
    handling: Handling, late: Work
) -> None:
    await handling.handle(6, puts("six"))
    with pytest.raises(Superseded):
        await handling.handle(5, late)
    assert await handling.value("x") == "six"


@pytest.mark.parametrize("again", [_get, _delete, _create, _update, _names])
async def test_a_message_that_was_committed_before_is_told_so(
    handling: Handling, again: Work
) -> None:
    await handling.handle(5, puts("five"))
    with pytest.raises(Repeated):
        await handling.handle(5, again)


async def test_a_message_that_writes_again_without_a_look_is_done(handling: Handling) -> None:
    await handling.handle(5, puts("five"))
    await handling.again().handle(5, puts("again"))
    assert await handling.value("x") == "five"


async def test_a_message_that_ignores_that_it_is_late_does_not_count(handling: Handling) -> None:
    async def stubborn(ctx: Context) -> None:
        with pytest.raises(Superseded):
            await ctx.state.get("x", str)
        await ctx.state.put("y", "late")
        ctx.emit(handling.placed, 1)

    await handling.handle(6, puts("six"))
    with pytest.raises(Superseded):
        await handling.handle(5, stubborn)
    assert (await handling.value("y"), await handling.told()) == (None, [])


async def test_an_earlier_message_can_write_what_no_later_one_has(handling: Handling) -> None:
    await handling.handle(6, puts("six"))
    await handling.handle(5, puts("five", "y"))
    assert await handling.value("y") == "five"


async def test_what_a_later_one_deleted_stays_deleted(handling: Handling) -> None:
    await handling.handle(5, puts("five"))
    await handling.handle(6, _delete)
    with pytest.raises(Superseded):
        await handling.handle(5, puts("late"))
    assert await handling.value("x") is None


async def test_what_an_earlier_one_deleted_is_written_again(handling: Handling) -> None:
    await handling.handle(5, puts("five"))
    await handling.handle(6, _delete)
    await handling.handle(7, puts("seven"))
    assert await handling.value("x") == "seven"


async def test_a_request_writes_and_keeps_the_fence(handling: Handling) -> None:
    await handling.handle(6, puts("six"))
    await handling.state().put("x", "by request")
    assert await handling.value("x") == "by request"
    with pytest.raises(Superseded):
        await handling.handle(5, puts("late"))
    await handling.handle(7, puts("seven"))


async def test_where_no_order_is_declared_nothing_is_refused(handling: Handling) -> None:
    await handling.handle(6, puts("six"))
    await handling.handle(5, puts("five"), ordered=False)
    assert await handling.value("x") == "five"


async def test_a_new_epoch_writes_over_everything_of_the_old_one(handling: Handling) -> None:
    await handling.handle(900, puts("old"))
    await handling.handle(1, puts("replayed"), epoch=1)
    with pytest.raises(Superseded):
        await handling.handle(901, puts("old again"))
    assert await handling.value("x") == "replayed"


async def test_a_value_carries_the_fence_of_its_message(handling: Handling) -> None:
    await handling.handle(5, puts("five"), epoch=2)
    record = await handling.record("x")
    assert record is not None
    assert record.headers["Tenant-Fence"] == str(fence_of(2, 5))


async def test_who_has_lost_the_message_writes_and_reads_nothing(handling: Handling) -> None:
    lost = [False]

    async def work(ctx: Context) -> None:
        await ctx.state.put("x", "mine")
        lost[0] = True
        with pytest.raises(LaneLost):
            await ctx.state.put("x", "more")
        with pytest.raises(LaneLost):
            await ctx.state.get("x", str)
        with pytest.raises(LaneLost):
            await ctx.state.names()

    with pytest.raises(LaneLost):
        await handling.handle(5, work, lost=lambda: lost[0])
    assert await handling.value("x") is None


async def test_who_keeps_the_message_writes_and_reads(handling: Handling) -> None:
    async def work(ctx: Context) -> None:
        await ctx.state.put("x", "mine")
        entry = await ctx.state.get("x", str)
        assert entry is not None

    await handling.handle(5, work)
    assert await handling.value("x") == "mine"


async def test_who_has_lost_the_message_emits_nothing(handling: Handling) -> None:
    own = fence(5)

    async def work(ctx: Context) -> None:
        ctx.emit(handling.placed, 1)
        own.end()

    with pytest.raises(LaneLost):
        await handling.handle_under(own, work)
    assert await handling.told() == []


async def test_a_reset_hook_writes_at_once_under_its_fence(handling: Handling) -> None:
    await handling.handle(900, puts("old"))

    async def hook(ctx: Context) -> None:
        await ctx.state.clear()

    await handling.stored.reset(handling.tenant, hook, fence(0, epoch=1))
    assert await handling.value("x") is None
    await handling.handle(1, puts("replayed"), epoch=1)
    with pytest.raises(Superseded):
        await handling.handle(901, puts("late"))


async def test_a_reset_hook_that_has_lost_its_tenant_writes_nothing(handling: Handling) -> None:
    await handling.handle(5, puts("five"))
    own = fence(0, epoch=1)

    async def hook(ctx: Context) -> None:
        own.end()
        with pytest.raises(LaneLost):
            await ctx.state.clear()

    await handling.stored.reset(handling.tenant, hook, own)
    assert await handling.value("x") == "five"


async def test_namespaces_do_not_see_each_other(handling: Handling) -> None:
    await handling.handle(5, puts("live"))

    async def shadow(ctx: Context) -> None:
        assert await ctx.state.get("x", str) is None
        await ctx.state.put("x", "shadow")

    await handling.handle(5, shadow, generation=3)
    assert (await handling.value("x"), await handling.value("x", 3)) == ("live", "shadow")


@pytest.mark.parametrize("generation", [0, 3])
async def test_a_namespace_is_cleared_alone(handling: Handling, generation: int) -> None:
    async def fill(ctx: Context) -> None:
        await ctx.state.put("a", 1)
        await ctx.state.put("b.c", 2)

    async def clear(ctx: Context) -> None:
        assert await ctx.state.names() == ["a", "b.c"]
        await ctx.state.clear()
        assert await ctx.state.names() == []

    for each in (0, 3):
        await handling.handle(5, fill, generation=each)
    await handling.handle(6, clear, generation=generation)
    assert await handling.state(generation).names() == []
    assert await handling.state(3 - generation).names() == ["a", "b.c"]
