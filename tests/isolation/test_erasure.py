"""Erasing one tenant, wherever the mesh holds something of it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tenantry.bus import Bus, store
from tenantry.bus import jetstream as js
from tenantry.errors import Conflict, NotFound, Unavailable
from tenantry.journal.erase import check_gone, erase
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, journal


async def fill(bus: Bus, tenant: str) -> dict[str, int]:
    """Leave something in every place; how many messages each holds then."""
    for number in range(3):
        await store(bus, f"tenant.{tenant}.archive.note", b"x")
        await store(bus, f"dead.{tenant}.archive.{number + 1}", b"x")
        await store(bus, f"$KV.state.{tenant}.archive.total", b"%d" % number)
    await store(bus, f"schedule.{tenant}.archive.{'1' * 32}", b"x")
    await store(bus, f"timer.{tenant}.archive.{'1' * 32}", b"x")
    await store(bus, f"$KV.cursors.archive.{tenant}", b"{}")
    await store(bus, f"$KV.replays.archive.{tenant}", b"{}")
    await store(bus, f"$KV.redrives.{tenant}.1", b"{}")
    await store(bus, f"$KV.usage.{tenant}", b"{}")
    return await held(bus, tenant)


async def held(bus: Bus, tenant: str) -> dict[str, int]:
    filters = {
        "JOURNAL": f"journal.*.{tenant}.>",
        "DEAD": f"dead.{tenant}.>",
        "SCHEDULES": f"schedule.{tenant}.>",
        "TIMERS": f"timer.{tenant}.>",
        "KV_state": f"$KV.state.{tenant}.>",
        "KV_redrives": f"$KV.redrives.{tenant}.*",
        "KV_usage": f"$KV.usage.{tenant}",
        "KV_replays": f"$KV.replays.*.{tenant}",
        "KV_cursors": f"$KV.cursors.*.{tenant}",
    }
    return {
        stream: len(await js.get_batch(bus, stream, subject=only))
        for stream, only in filters.items()
    }


@cannot(76, Layer.STORE)
@can(76)
async def test_nothing_of_the_tenant_is_left(acme: Program, control: Bus) -> None:
    before = await fill(control, acme.id)
    erased: Counter[str] = Counter()
    for each in await erase(control, acme.id):
        erased[each.stream] += each.count
    assert erased == before
    assert set((await held(control, acme.id)).values()) == {0}


@cannot(76, Layer.STORE)
async def test_the_others_keep_all(mesh: Mesh, control: Bus) -> None:
    async with mesh.neighbours() as (one, two), mesh.program() as three:
        await fill(control, one.id)
        kept = [await fill(control, two.id), await fill(control, three.id)]
        await erase(control, one.id)
        assert [await held(control, two.id), await held(control, three.id)] == kept


@cannot(67, Layer.STORE)
@cannot(76, Layer.STORE)
async def test_a_name_that_begins_alike_is_not_touched(mesh: Mesh, control: Bus) -> None:
    short, long = await mesh.tenant("alike"), await mesh.tenant("alike-too")
    await fill(control, short.stem)
    kept = await fill(control, long.stem)
    await erase(control, short.stem)
    assert await held(control, long.stem) == kept


async def test_erasing_can_be_repeated(acme: Program, control: Bus) -> None:
    await fill(control, acme.id)
    await erase(control, acme.id)
    assert {each.count for each in await erase(control, acme.id)} == {0}


async def test_an_active_tenant_is_not_erased(mesh: Mesh, acme: Program, control: Bus) -> None:
    with pytest.raises(Conflict, match="is active"):
        await check_gone(control, acme.id)
    await check_gone(control, acme.id, force=True)


@pytest.mark.parametrize("change", ["suspend", "delete"])
async def test_a_suspended_or_deleted_tenant_may_be_erased(
    mesh: Mesh, acme: Program, control: Bus, change: str
) -> None:
    await mesh.control(change, id=acme.id)
    await check_gone(control, acme.id)


async def test_an_unknown_tenant_is_told(control: Bus) -> None:
    with pytest.raises(NotFound):
        await check_gone(control, "nobody")
    await check_gone(control, "nobody", force=True)


async def test_a_tenant_that_goes_on_sending_is_told(acme: Program, control: Bus) -> None:
    async def send() -> None:
        while True:
            await store(control, f"tenant.{acme.id}.archive.note", b"x")

    sending = asyncio.create_task(send())
    with pytest.raises(Unavailable, match="still come"):
        await erase(control, acme.id)
    sending.cancel()
    await asyncio.wait({sending})
    await erase(control, acme.id)
    assert await journal(control, acme.id) == []
