"""Lag by service and by tenant."""

from __future__ import annotations

from typing import Any

from tenantry import lag
from tenantry.bus import Bucket, Bus, api
from tenantry.lag import ServiceLag, TenantLag
from tenantry.messages import Cursor
from tests.letters import lay, stored
from tests.mesh import Mesh, Program, eventually
from tests.services import Memory


async def of_service(control: Bus, name: str) -> ServiceLag:
    return next(each for each in await lag.services(control) if each.service == name)


async def of_tenant(control: Bus, tenant: str, service: str) -> TenantLag:
    return next(each for each in await lag.tenant(control, tenant) if each.service == service)


async def send(program: Program, memory: Memory, *texts: str) -> list[int]:
    action = f"{memory.service.name}.keep"
    return [(await program.client.publish(action, {"text": text})).seq for text in texts]


async def known(mesh: Mesh, name: str, **options: Any) -> Memory:
    """A service that has run and runs no more."""
    memory = Memory(name, **options)
    await mesh.start(mesh.worker(memory.service)).stop()
    return memory


async def test_a_service_that_is_through_has_none(mesh: Mesh, control: Bus) -> None:
    await known(mesh, "idle")
    assert await of_service(control, "idle") == ServiceLag(
        service="idle", waiting=0, in_hand=0, behind=0, oldest=None, dead=0
    )


async def test_what_nobody_reads_waits(mesh: Mesh, control: Bus) -> None:
    memory = await known(mesh, "absent")
    async with mesh.program() as acme, mesh.program() as globex:
        await send(acme, memory, "one", "two")
        await send(globex, memory, "three")
        found = await of_service(control, "absent")
        assert (found.waiting, found.in_hand) == (3, 0)
        assert found.oldest is not None
        assert (await of_tenant(control, acme.id, "absent")).waiting == 2
        assert (await of_tenant(control, globex.id, "absent")).waiting == 1


async def test_of_whom_most_waits_is_first(mesh: Mesh, control: Bus) -> None:
    memory = await known(mesh, "deserted")
    async with mesh.program() as acme, mesh.program() as globex, mesh.program() as quiet:
        await send(acme, memory, *"abcdefgh")
        await send(globex, memory, *"abcdefghijkl")
        found = await lag.longest(control, 100)
        ours = [name for name in found if name in (acme.id, globex.id, quiet.id)]
        assert ours == [globex.id, acme.id]
        assert len(await lag.longest(control, 1)) == 1


async def test_what_is_handled_waits_no_more(mesh: Mesh, control: Bus) -> None:
    memory = await known(mesh, "back")
    async with mesh.program() as acme:
        await send(acme, memory, "one", "two")
        running = mesh.start(mesh.worker(memory.service))
        await eventually(lambda: _is(control, "back", 0, 0))
        assert (await of_tenant(control, acme.id, "back")).waiting == 0
        await running.stop()


async def test_what_an_instance_has_is_in_hand(mesh: Mesh, control: Bus) -> None:
    memory = Memory("busy", concurrency=2)
    memory.gate.clear()
    running = mesh.start(mesh.worker(memory.service))
    async with mesh.program() as acme:
        await send(acme, memory, *"abcdef")
        await eventually(lambda: _has_in_hand(control, "busy"))
        found = await of_service(control, "busy")
        assert found.waiting + found.in_hand == 6
        assert found.waiting > 0
        await mesh.set(memory.gate)
        await eventually(lambda: _is(control, "busy", 0, 0))
    await running.stop()


async def test_a_tenant_that_is_behind_waits_from_its_cursor_on(mesh: Mesh, control: Bus) -> None:
    memory = Memory("patient")
    running = mesh.start(mesh.worker(memory.service))
    async with mesh.neighbours() as (acme, globex):
        seqs = await send(acme, memory, "one", "two", "three")
        await send(globex, memory, "other")
        await eventually(lambda: _is(control, "patient", 0, 0))
        await running.stop()
        cursor = Cursor(
            next=seqs[1],
            behind=True,
            failed=2,
            code="handler_failed",
            first_failed=1_000.0,
            retry_at=2_000.0,
        )
        await _cursors(control).put(f"patient.{acme.id}", cursor)
        await send(acme, memory, "four")
        assert await of_tenant(control, acme.id, "patient") == TenantLag(
            service="patient",
            waiting=3,
            dead=0,
            behind=True,
            failed=2,
            code="handler_failed",
            since=1_000.0,
            retry_at=2_000.0,
        )
        assert await of_tenant(control, globex.id, "patient") == TenantLag(
            service="patient", waiting=0, dead=0
        )
        found = await of_service(control, "patient")
        assert (found.waiting, found.behind) == (3, 1)
        assert found.oldest is not None


async def test_a_tenant_that_has_caught_up_is_not_behind(mesh: Mesh, control: Bus) -> None:
    memory = await known(mesh, "caught")
    async with mesh.program() as acme:
        (seq,) = await send(acme, memory, "one")
        bucket = _cursors(control)
        await bucket.put(f"caught.{acme.id}", Cursor(next=seq, behind=True, failed=1))
        await bucket.put(f"caught.{acme.id}", Cursor(next=seq, epoch=1))
        assert (await of_service(control, "caught")).behind == 0
        found = await of_tenant(control, acme.id, "caught")
        assert (found.behind, found.since, found.waiting) == (False, None, 1)
        await bucket.delete(f"caught.{acme.id}")
        assert (await of_tenant(control, acme.id, "caught")).waiting == 1


async def test_dead_letters_count(mesh: Mesh, control: Bus) -> None:
    memory = await known(mesh, "mortal")
    async with mesh.program() as acme, mesh.program() as globex:
        for seq in await send(acme, memory, "one", "two"):
            await lay(control, acme.id, await stored(control, seq))
        assert (await of_service(control, "mortal")).dead == 2
        assert (await of_tenant(control, acme.id, "mortal")).dead == 2
        assert (await of_tenant(control, globex.id, "mortal")).dead == 0


async def test_more_consumers_than_a_page_has(mesh: Mesh, control: Bus) -> None:
    names = [f"many-{each}" for each in range(300)]
    for name in names:
        config = {
            "name": name,
            "durable_name": name,
            "ack_policy": "explicit",
            "filter_subjects": ["journal.0.*.many.keep"],
        }
        await api(
            control, f"CONSUMER.CREATE.JOURNAL.{name}", {"stream_name": "JOURNAL", "config": config}
        )
    try:
        found = await lag._lanes(control)
        assert len(found["many"]) == 300
        assert "notes" in found
    finally:
        for name in names:
            await api(control, f"CONSUMER.DELETE.JOURNAL.{name}")


def _cursors(control: Bus) -> Bucket[Cursor]:
    return Bucket(control, "cursors", Cursor)


async def _is(control: Bus, service: str, waiting: int, in_hand: int) -> bool:
    found = await of_service(control, service)
    return (found.waiting, found.in_hand) == (waiting, in_hand)


async def _has_in_hand(control: Bus, service: str) -> bool:
    return (await of_service(control, service)).in_hand > 0
