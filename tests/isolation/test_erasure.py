"""Erasing one tenant, wherever the mesh holds something of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter

import msgspec
import pytest

from tenantry.bus import Bucket, Bus, store
from tenantry.bus import jetstream as js
from tenantry.bus.scan import scan
from tenantry.errors import Conflict, NotFound, Unavailable
from tenantry.journal.erase import check_gone, erase
from tenantry.messages import Checkpoint, Open
from tenantry.subjects import partition
from tests.integration.mesh.planner import FAR, planner
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import failures


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
    bucket = Bucket(bus, "checkpoints", Checkpoint)
    await bucket.change(f"archive.{partition(tenant)}", lambda found: _with(found, tenant))
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
    found = {
        stream: len(await js.get_batch(bus, stream, subject=only))
        for stream, only in filters.items()
    }
    return found | {"KV_checkpoints": len(await opened(bus, tenant))}


def _with(found: Checkpoint | None, tenant: str) -> Checkpoint:
    """A checkpoint with a tenant that waits for a retry, and has unordered messages."""
    found = found or Checkpoint(read_to=9)
    names = (tenant, f"{tenant}#", f"{tenant}#7")
    return msgspec.structs.replace(
        found, open={**found.open, **{name: Open(next=7, why="failed") for name in names}}
    )


async def opened(bus: Bus, tenant: str, service: str = "archive") -> list[str]:
    """What a service's checkpoint names of a tenant."""
    key = f"{service}.{partition(tenant)}"
    found = await Bucket(bus, "checkpoints", Checkpoint).get(key)
    names = found.value.open if found is not None else {}
    return sorted(name for name in names if name.partition("#")[0] == tenant)


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


@cannot(76, Layer.STORE)
async def test_all_else_in_a_checkpoint_stays(mesh: Mesh, control: Bus) -> None:
    async with mesh.neighbours() as (one, two):
        await fill(control, one.id)
        await fill(control, two.id)
        await erase(control, one.id)
        found = await Bucket(control, "checkpoints", Checkpoint).get(f"archive.{partition(two.id)}")
        assert found is not None
        assert found.value.read_to == 9
        assert len(await opened(control, two.id)) == 3


async def test_a_checkpoint_that_its_owner_writes_meanwhile_is_tried_again(
    acme: Program, control: Bus
) -> None:
    await fill(control, acme.id)
    key, bucket = f"archive.{partition(acme.id)}", Bucket(control, "checkpoints", Checkpoint)

    def further(found: Checkpoint | None) -> Checkpoint | None:
        return found and msgspec.structs.replace(found, read_to=found.read_to + 1)

    async def own() -> None:
        while True:
            await bucket.change(key, further)
            await asyncio.sleep(0.01)

    owning = asyncio.create_task(own())
    places = {each.stream: each.count for each in await erase(control, acme.id)}
    owning.cancel()
    await asyncio.wait({owning})
    assert places["KV_checkpoints"] == 3
    assert await opened(control, acme.id) == []


async def test_a_handler_at_work_does_not_keep_a_tenant_from_being_erased(
    acme: Program, control: Bus
) -> None:
    """Its owner names the tenant in the checkpoint until the handler ends."""
    key, bucket = f"archive.{partition(acme.id)}", Bucket(control, "checkpoints", Checkpoint)

    def named(found: Checkpoint | None) -> Checkpoint:
        found = found or Checkpoint()
        return msgspec.structs.replace(found, open={**found.open, acme.id: Open(next=7)})

    async def own() -> None:
        while True:
            await bucket.change(key, named)
            await asyncio.sleep(0.01)

    owning = asyncio.create_task(own())
    await erase(control, acme.id)
    owning.cancel()
    await asyncio.wait({owning})
    await erase(control, acme.id)
    assert await opened(control, acme.id) == []


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


@pytest.mark.parametrize("force", [False, True])
async def test_who_waited_for_a_retry_is_served_once_and_in_order_afterwards(
    mesh: Mesh, acme: Program, control: Bus, force: bool
) -> None:
    """Workers hold in memory where a sidelined tenant stands."""
    failures[acme.id] = ["raise"] * 6  # a second or so
    await acme.client.publish("notes.stumble", {"text": "erased"})
    await eventually(lambda: _is_sidelined(control, acme.id))
    if not force:
        await mesh.control("suspend", id=acme.id)
        await eventually(lambda: _told(control, acme.id, "tenant_suspended"))
    await erase(control, acme.id)
    failures.pop(acme.id)
    if not force:
        await mesh.control("resume", id=acme.id)
        await mesh.ready(acme, "notes.echo")
    texts = [str(number) for number in range(20)]
    for text in texts:
        await acme.client.publish("notes.remember", {"text": text})
    await eventually(lambda: _remembers(acme, texts))

    async def is_back() -> bool:  # the checkpoint says so a moment later
        return not await _is_sidelined(control, acme.id)

    await eventually(is_back)


async def _is_sidelined(control: Bus, tenant: str) -> bool:
    return await opened(control, tenant, "notes") == [tenant]


async def _remembers(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts


CANARY = "canary-of-the-erased"
ITS_OWN = ("KV_tenants", "KV_suspended", "KV_volumes")
"""Where its record stays, that it is suspended, and what was counted of it: no body, no header."""


@pytest.fixture(scope="module")
def planning(mesh: Mesh) -> None:
    mesh.start(mesh.worker(planner()))


@cannot(76, Layer.STORE)
async def test_no_stream_holds_anything_of_a_tenant_that_was_at_work(
    mesh: Mesh, planning: None, acme: Program, control: Bus
) -> None:
    """Also none that is new, and that erasing would have to be told of."""
    await work(mesh, acme, control)
    found = await anywhere(control, acme.id)
    assert {"JOURNAL", "DEAD", "SCHEDULES", "TIMERS", "KV_state"} <= found
    await mesh.control("suspend", id=acme.id)
    await eventually(lambda: _told(control, acme.id, "tenant_suspended"))
    await erase(control, acme.id)
    assert await anywhere(control, acme.id) - set(ITS_OWN) == set()


async def work(mesh: Mesh, program: Program, control: Bus) -> None:
    """A command, an event, state, a dead letter, a schedule, each with the canary in it."""
    await mesh.ready(program, "planner.plan")
    await program.client.publish("notes.remember", {"text": CANARY})
    await program.client.request("notes.emit", {"text": CANARY, "count": 1})
    await program.client.request("planner.plan", {"text": CANARY, "after": FAR})
    await program.client.publish("notes.remember", {"text": [CANARY]})

    async def done() -> bool:
        letters = await js.get_batch(control, "DEAD", subject=f"dead.{program.id}.>")
        return await program.texts() == [CANARY] and len(letters) == 1

    await eventually(done)


async def anywhere(control: Bus, tenant: str) -> set[str]:
    """The streams in which a subject or a message names the tenant or its canary."""
    found = set()
    for stream in (await js.api(control, "STREAM.NAMES"))["streams"]:
        async for message in scan(control, stream, ">"):
            text = json.dumps([message.subject, *message.headers.values()])
            canary = CANARY in text or CANARY.encode() in message.data
            if stream == "KV_checkpoints":  # its keys name no tenant, its values do
                text += message.data.decode().replace("#", '"')
            if canary or re.search(rf"[.\" ]{tenant}[.\" ]", text):
                found.add(stream)
    return found


async def _told(control: Bus, tenant: str, event: str) -> bool:
    return bool(await journal(control, tenant, f"tenants.{event}"))
