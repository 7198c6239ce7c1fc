"""Reading one tenant's messages out of the journal that all share."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tenantry.bus import Bus, api, scan, store
from tenantry.journal import Selection, first_at, from_last, read
from tenantry.streams import JOURNAL
from tests.mesh import Mesh, Program


async def fill(bus: Bus, tenant: str, count: int, action: str = "archive.note") -> list[int]:
    """Store so many messages, which no service handles; their sequences."""
    return [
        (await store(bus, f"tenant.{tenant}.{action}", b"%d" % number)).seq
        for number in range(count)
    ]


async def seqs(bus: Bus, tenant: str, **wanted: Any) -> list[int]:
    wanted = {"service": "archive", **wanted} if "actions" not in wanted else wanted
    return [each.seq async for each in read(bus, Selection(tenant=tenant, **wanted))]


async def test_a_tenant_is_read_in_order_and_alone(
    acme: Program, globex: Program, control: Bus
) -> None:
    one, two = [], []
    for _ in range(3):
        one += await fill(control, acme.id, 1)
        two += await fill(control, globex.id, 1)
    assert (await seqs(control, acme.id), await seqs(control, globex.id)) == (one, two)


async def test_neighbours_of_one_partition_are_read_apart(mesh: Mesh, control: Bus) -> None:
    async with mesh.neighbours() as (one, two):
        stored = await fill(control, one.id, 2)
        await fill(control, two.id, 2)
        assert await seqs(control, one.id) == stored


async def test_the_span_ends_before_its_end(acme: Program, control: Bus) -> None:
    stored = await fill(control, acme.id, 5)
    assert await seqs(control, acme.id, since=stored[1], until=stored[3]) == stored[1:3]


async def test_actions_are_chosen(acme: Program, control: Bus) -> None:
    a = await fill(control, acme.id, 1, "archive.a")
    b = await fill(control, acme.id, 1, "archive.b")
    c = await fill(control, acme.id, 1, "other.c")
    assert await seqs(control, acme.id, actions=("archive.a",)) == a
    assert await seqs(control, acme.id, actions=("archive.a", "archive.b")) == a + b
    assert await seqs(control, acme.id, actions=("archive.b", "other.c")) == b + c
    assert await seqs(control, acme.id, service="other") == c


async def test_more_than_one_batch_is_read(
    acme: Program, control: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "BATCH", 3)
    stored = await fill(control, acme.id, 10)
    assert await seqs(control, acme.id) == stored


async def test_what_was_erased_meanwhile_is_left_out(
    acme: Program, control: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "BATCH", 2)
    stored = await fill(control, acme.id, 6)
    got = []
    async for message in read(control, Selection(tenant=acme.id, service="archive")):
        got.append(message.seq)
        if len(got) == 1:
            await api(control, f"STREAM.MSG.DELETE.{JOURNAL}", {"seq": stored[5]})
    assert got == stored[:5]


async def test_what_comes_is_followed(acme: Program, control: Bus) -> None:
    stored = await fill(control, acme.id, 2)
    got: list[int] = []
    wanted = Selection(tenant=acme.id, service="archive")
    async with asyncio.timeout(20):
        async for message in read(control, wanted, follow=True):
            got.append(message.seq)
            if len(got) == 2:
                stored += await fill(control, acme.id, 2)
            if len(got) == 4:
                break
    assert got == stored


async def test_a_time_is_found(acme: Program, globex: Program, control: Bus) -> None:
    await fill(control, acme.id, 2)
    await asyncio.sleep(0.01)  # a step of the clock, not a wait
    now = time.time()
    await fill(control, globex.id, 1)
    stored = await fill(control, acme.id, 2)
    assert await first_at(control, acme.id, now) == stored[0]
    assert await first_at(control, acme.id, now + 3_600) is None
    assert await first_at(control, acme.id, 1e12) is None
    first = await first_at(control, acme.id, -5.0)
    assert first is not None
    assert first < stored[0]


async def test_the_last_ones_are_found(acme: Program, globex: Program, control: Bus) -> None:
    stored = []
    for _ in range(9):
        stored += await fill(control, acme.id, 1)
        await fill(control, globex.id, 2)
    wanted = Selection(tenant=acme.id, service="archive")
    for count in (1, 4, 9):
        since = await from_last(control, wanted, count)
        assert await seqs(control, acme.id, since=since) == stored[-count:]
    assert await seqs(control, acme.id, since=await from_last(control, wanted, 50)) == stored


async def test_of_nothing_there_is_no_last(control: Bus, acme: Program) -> None:
    wanted = Selection(tenant=acme.id, service="archive")
    assert await seqs(control, acme.id, since=await from_last(control, wanted, 3)) == []


async def test_a_restart_of_nats_does_not_show(own_mesh: Mesh) -> None:
    creds = await own_mesh.tenant()
    async with await own_mesh.insider("control") as control:
        stored = await fill(control, creds.stem, 600)
        got = []
        async for message in read(control, Selection(tenant=creds.stem, service="archive")):
            got.append(message.seq)
            if len(got) == 10:
                await asyncio.to_thread(own_mesh.backend.kill)
                await asyncio.to_thread(own_mesh.backend.start)
        assert got == stored
