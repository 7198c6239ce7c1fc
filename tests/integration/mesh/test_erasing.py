"""An erasure is complete: what was in hand has ended, and nothing is written afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from tenantry import Context, Service
from tenantry.bus import Bus
from tenantry.bus.jetstream import api
from tenantry.bus.scan import find_last, scan
from tenantry.errors import Unavailable
from tenantry.journal.erase import erase
from tenantry.replays import Replays
from tenantry.subjects import partition
from tests.integration.mesh.counting import Owners
from tests.mesh import Mesh, Program, eventually
from tests.services import Note, Noted

PLACES = {"JOURNAL": "journal.*.{}.>", "DEAD": "dead.{}.>", "KV_state": "$KV.state.{}.>"}


class Slow:
    """Its handlers begin, wait at a gate, and only then leave something."""

    def __init__(self, name: str) -> None:
        service = self.service = Service(name, version="1.0.0")
        self.left = service.event("left", Noted)
        self.gate = asyncio.Event()
        self.begun: list[str] = []
        service.command("store", public=True, replayable=True, timeout=120.0)(self.store)
        service.request("ask", public=True, timeout=120.0)(self.store)
        service.request("ready", public=True)(self.ready)

    async def store(self, ctx: Context, note: Note) -> None:
        """Wait, then write state and emit; with a count, end with it at once."""
        self.begun.append(note.text)
        if not note.count:
            await self.gate.wait()
        await ctx.state.put("text", note)
        ctx.emit(self.left, Noted(note.text))

    async def ready(self, _ctx: Context) -> None:
        """Answer."""

    async def begins(self, text: str, times: int = 1) -> None:
        async def check() -> bool:
            return self.begun.count(text) >= times

        await eventually(check)


@pytest.fixture
async def slow(mesh: Mesh, acme: Program, request: pytest.FixtureRequest) -> AsyncIterator[Slow]:
    name = request.node.name.removeprefix("test_").split("[")[0][:40].rstrip("_")
    slow = Slow(name)
    running = mesh.start(mesh.worker(slow.service))
    await mesh.ready(acme, f"{name}.ready")
    yield slow
    await mesh.set(slow.gate)
    await running.stop()


async def held(bus: Bus, tenant: str) -> list[str]:
    """The subjects on which something of a tenant is stored."""
    found = [(stream, each.format(tenant)) for stream, each in PLACES.items()]
    return [m.subject for stream, only in found async for m in scan(bus, stream, only)]


async def settled(control: Bus, slow: Slow, program: Program) -> None:
    """Return when the service has nothing more in hand of a tenant."""

    async def check() -> bool:
        record = await Owners(control, slow.service.name).checkpoint(partition(program.id))
        return program.id not in record.open

    await eventually(check)


@pytest.mark.parametrize("change", ["suspend", "delete"])
async def test_a_handler_at_work_leaves_nothing(
    mesh: Mesh, control: Bus, acme: Program, slow: Slow, change: str
) -> None:
    for text in ("first", "second"):
        await acme.client.publish(f"{slow.service.name}.store", {"text": text})
    await slow.begins("first")
    await mesh.control(change, id=acme.id)
    await erase(control, acme.id)
    await mesh.set(slow.gate)
    await settled(control, slow, acme)
    assert await held(control, acme.id) == []
    assert slow.begun == ["first"]


async def test_a_neighbour_at_work_goes_on(mesh: Mesh, control: Bus) -> None:
    async with mesh.neighbours() as (one, two):
        slow = Slow("goes_on")
        running = mesh.start(mesh.worker(slow.service))
        await mesh.ready(two, "goes_on.ready")
        await two.client.publish("goes_on.store", {"text": "mine"})
        await slow.begins("mine")
        await mesh.control("suspend", id=one.id)
        await erase(control, one.id)
        await mesh.set(slow.gate)

        async def left() -> bool:
            return f"$KV.state.{two.id}.goes_on.text" in await held(control, two.id)

        await eventually(left)
        assert slow.begun == ["mine"]
        await running.stop()


async def test_what_comes_after_an_erasure_is_handled(
    mesh: Mesh, control: Bus, acme: Program, slow: Slow
) -> None:
    await acme.client.publish(f"{slow.service.name}.store", {"text": "erased"})
    await slow.begins("erased")
    await erase(control, acme.id)
    await acme.client.publish(f"{slow.service.name}.store", {"text": "new", "count": 1})

    async def written() -> bool:
        return f"$KV.state.{acme.id}.{slow.service.name}.text" in await held(control, acme.id)

    await eventually(written)
    assert slow.begun == ["erased", "new"]


async def test_a_request_at_work_is_waited_for(
    mesh: Mesh, control: Bus, acme: Program, slow: Slow
) -> None:
    asking = asyncio.create_task(
        acme.client.request(f"{slow.service.name}.ask", {"text": "asked"}, timeout=60.0)
    )
    await slow.begins("asked")
    await mesh.control("suspend", id=acme.id)
    with pytest.raises(Unavailable, match=f"has not ended: {slow.service.name}/"):
        await erase(control, acme.id, patience=0.0)
    erasing = asyncio.create_task(erase(control, acme.id))
    await mesh.set(slow.gate)
    await asking
    await erasing
    assert await held(control, acme.id) == []


async def test_a_replay_at_work_leaves_nothing(
    mesh: Mesh, control: Bus, acme: Program, slow: Slow
) -> None:
    await acme.client.publish(f"{slow.service.name}.store", {"text": "old", "count": 0})
    await slow.begins("old")
    await mesh.set(slow.gate)
    await settled(control, slow, acme)
    await mesh.aside(_shut(slow.gate))
    await Replays(control).ask(acme.id, slow.service.name, by="test")
    await slow.begins("old", 2)
    await mesh.control("suspend", id=acme.id)
    await erase(control, acme.id)
    await mesh.set(slow.gate)
    await settled(control, slow, acme)
    assert await held(control, acme.id) == []


async def _shut(gate: asyncio.Event) -> None:
    gate.clear()


async def test_an_owner_that_is_silent_is_fenced(mesh: Mesh, control: Bus, acme: Program) -> None:
    owners = Owners(control, "nowhere")
    await owners.lease("stranger-1")
    await owners.change(partition(acme.id), lambda it: replace(it, owner="stranger-1"))
    await mesh.control("suspend", id=acme.id)
    await erase(control, acme.id)
    assert not await owners.is_alive("stranger-1")


async def test_the_last_event_of_its_record_comes_before_the_end(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    await mesh.control("delete", id=acme.id)
    await erase(control, acme.id)
    last = await find_last(control, "KV_tenants", f"$KV.tenants.{acme.id}")
    info = await api(control, "CONSUMER.INFO.KV_tenants.tenants-events")
    assert info["ack_floor"]["stream_seq"] >= last
    assert await held(control, acme.id) == []
