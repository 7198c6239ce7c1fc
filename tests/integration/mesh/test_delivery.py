"""Who owns a partition: exactly one instance, until another has taken it for sure."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from tenantry import errors
from tenantry.bus import Bus
from tenantry.delivery import timing
from tenantry.subjects import partition
from tests.integration.mesh.counting import Counting, Owners, prepared
from tests.mesh import Mesh, Program, Running, eventually

AWAY = 60.0


class Start(NamedTuple):
    """A service, what it is owned by, and a worker of it."""

    counting: Counting
    owners: Owners
    running: Running


async def start(mesh: Mesh, control: Bus, name: str, acme: Program, *, gate: bool = False) -> Start:
    counting = Counting(name, gate=gate)
    owners = Owners(control, name)
    running = mesh.start(mesh.worker(counting.service))
    await mesh.ready(acme, f"{name}.texts")
    await owners.shared(1)
    return Start(counting, owners, running)


# --- instances come and go ------------------------------------------------------------------------


async def test_many_instances_join_and_leave_at_once(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    owners = Owners(control, "many")
    several = [Counting("many") for _ in range(8)]
    starting = (asyncio.to_thread(mesh.start, mesh.worker(each.service)) for each in several)
    running = await asyncio.gather(*starting)
    await mesh.ready(acme, "many.texts")
    await owners.shared(8)
    await several[0].send(acme, "a")
    await asyncio.gather(*(each.stop() for each in running[1:]))
    await owners.shared(1)
    await several[0].send(acme, "b")
    await several[0].has(acme, "a", "b")
    await running[0].stop()
    await owners.released()
    assert await owners.events(acme.id) == ["a", "b"]


async def test_two_services_of_one_process_each_handle_their_own(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    one, two = Counting("first_of_two"), Counting("second_of_two")
    running = mesh.start(mesh.worker(one.service, two.service))
    for each in (one, two):
        await mesh.ready(acme, f"{each.service.name}.texts")
        await each.send(acme, "a", "b")
    for each in (one, two):
        await each.has(acme, "a", "b")
        assert each.runs("a") == each.runs("b") == 1
        await Owners(control, each.service.name).shared(1)
    await running.stop()


async def test_after_an_orderly_stop_nothing_runs_twice(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    old, new = Counting("orderly", gate=True), Counting("orderly")
    first = mesh.start(mesh.worker(old.service))
    await mesh.ready(acme, "orderly.texts")
    await old.send(acme, "a", "b", "c")
    await old.begins("a")
    second = mesh.start(mesh.worker(new.service))
    stopping = asyncio.create_task(first.stop())
    await mesh.set(old.gate)
    await stopping
    await new.has(acme, "a", "b", "c")
    assert [text for _, text in old.ran + new.ran] == ["a", "b", "c"]
    await second.stop()


# --- the checkpoint is another's ------------------------------------------------------------------


async def test_an_owner_stops_when_its_checkpoint_is_anothers(mesh: Mesh, control: Bus) -> None:
    async with mesh.neighbours() as (acme, globex):
        counting, owners, running = await start(mesh, control, "ousted", acme, gate=True)
        number = partition(acme.id)
        await owners.lease("stranger-1")
        await counting.send(acme, "a")
        await counting.begins("a")
        with capture_logs() as logs:
            await owners.change(
                number, lambda it: replace(it, epoch=it.epoch + 7, owner="stranger-1")
            )
            await counting.send(globex, "x", passes=True)

            async def lost() -> bool:
                return any(each["event"] == "partition lost" for each in logs)

            await eventually(lost)
        await mesh.set(counting.gate)
        # Nobody counts for the stranger; its lease is fenced, and the partition claimed once more.
        await counting.has(acme, "a")
        assert counting.runs("a") == 2
        assert not await owners.is_alive("stranger-1")
        assert (await owners.checkpoint(number)).owner not in ("", "stranger-1")
        assert await owners.events(acme.id) == ["a"]
        await counting.has(globex, "x")
        await counting.send(acme, "b")
        await counting.has(acme, "a", "b")
        await running.stop()


async def test_an_erasure_of_a_row_stops_no_owner(mesh: Mesh, control: Bus) -> None:
    async with mesh.neighbours() as (acme, globex):
        counting, owners, running = await start(mesh, control, "erased_row", acme, gate=True)
        number = partition(acme.id)
        await counting.send(acme, "a")
        await counting.begins("a")

        async def has_row() -> bool:
            return acme.id in (await owners.checkpoint(number)).open

        await counting.send(globex, "x", passes=True)
        await eventually(has_row)
        before = await owners.change(number, lambda it: replace(it, open={}))
        await counting.send(globex, "y", passes=True)
        await counting.has(globex, "x", "y")

        async def has_come_further() -> bool:
            return (await owners.checkpoint(number)).read_to > before.read_to

        await eventually(has_come_further)
        await mesh.set(counting.gate)
        await counting.has(acme, "a")
        after = await owners.checkpoint(number)
        assert (after.epoch, after.owner) == (before.epoch, before.owner)
        assert counting.runs("a") == 1
        await running.stop()


# --- the server goes away -------------------------------------------------------------------------


@pytest.mark.parametrize("away", [0.0, 1.5 * timing.TAKEOVER], ids=["shorter", "longer"])
async def test_a_restart_of_the_server_moves_nothing_and_goes_on_with_what_runs(
    own_mesh: Mesh, away: float
) -> None:
    one, two = Counting("restarted", gate=True), Counting("restarted", gate=True)
    running = [own_mesh.start(own_mesh.worker(each.service)) for each in (one, two)]
    async with own_mesh.program() as acme, await own_mesh.insider("root") as control:
        owners = Owners(control, "restarted")
        await own_mesh.ready(acme, "restarted.texts")
        await owners.shared(2)
        await one.send(acme, "a", "b")

        async def begun() -> bool:
            return one.runs("a") + two.runs("a") == 1

        await eventually(begun)
        before = await owners.all()
        await asyncio.to_thread(own_mesh.backend.kill)
        await asyncio.sleep(away)
        await asyncio.to_thread(own_mesh.backend.start)
        for each in (one, two):
            await own_mesh.set(each.gate)

        async def counted() -> bool:
            try:
                answer = await acme.client.request("restarted.texts", timeout=1.0)
            except errors.Rejection:  # a connection is not back yet
                return False
            return list(answer["texts"]) == ["a", "b"]

        await eventually(counted, within=AWAY)
        after = await owners.all()
        assert [(each.epoch, each.owner) for each in after] == [
            (each.epoch, each.owner) for each in before
        ]
        assert one.runs("a") + two.runs("a") == 1
        assert await owners.events(acme.id) == ["a", "b"]
    for worker in running:
        await worker.stop()


# --- what it takes over ---------------------------------------------------------------------------


async def test_what_waits_is_handled_by_the_next_owner_in_order(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    counting, owners = Counting("waiting"), Owners(control, "waiting")
    await prepared(mesh, counting, owners, acme)
    await counting.send(acme, *"abcde")
    running = mesh.start(mesh.worker(counting.service))
    await counting.has(acme, *"abcde")
    assert [text for _, text in counting.ran] == list("abcde")
    await running.stop()


async def test_a_clean_checkpoint_says_that_nothing_is_open(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    counting, owners, running = await start(mesh, control, "cleanly", acme)
    (seq, *_) = await counting.send(acme, "a", "b")
    await counting.has(acme, "a", "b")
    await running.stop()
    found = await owners.checkpoint(partition(acme.id))
    assert found.owner == ""
    assert found.open == {}
    assert found.begun == {}
    assert found.read_to > seq


async def test_a_backlog_is_sidelined_and_its_tenant_comes_back(mesh: Mesh, control: Bus) -> None:
    count = 700
    async with mesh.neighbours() as (acme, globex):
        counting, owners, running = await start(mesh, control, "backlogged", acme, gate=True)
        number = partition(acme.id)
        sends = (counting.send(acme, str(each)) for each in range(count))
        for send in sends:
            await send

        async def sidelined() -> bool:
            row = (await owners.checkpoint(number)).open.get(acme.id)
            return row is not None and row.why == "backlog"

        await eventually(sidelined)
        await counting.send(globex, "x", passes=True)
        await counting.has(globex, "x")
        await mesh.set(counting.gate)

        async def back() -> bool:
            found = await owners.checkpoint(number)
            return acme.id not in found.open and found.read_to > 0

        await counting.has(acme, *(str(each) for each in range(count)))
        await eventually(back)
        assert [text for tenant, text in counting.ran if tenant == acme.id] == [
            str(each) for each in range(count)
        ]
        await counting.send(acme, "after")
        await counting.begins("after")
        await running.stop()
