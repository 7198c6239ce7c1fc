"""Lag by service and by tenant."""

from __future__ import annotations

from typing import Any

from tenantry import Context, Retry, lag
from tenantry.bus import Bus
from tenantry.lag import ServiceLag, TenantLag
from tenantry.subjects import PARTITIONS
from tests.letters import lay, stored
from tests.mesh import Mesh, Program, eventually
from tests.services import Memory, Note


class Stubborn(Memory):
    """Fails for some tenants."""

    def __init__(self, name: str, **options: Any) -> None:
        self.refuses = set[str]()
        super().__init__(name, **options)

    async def keep(self, ctx: Context, note: Note) -> None:
        if ctx.tenant in self.refuses:
            raise RuntimeError("refused on purpose")
        await super().keep(ctx, note)


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
    found = await of_service(control, "idle")
    assert (found.waiting, found.in_hand, found.sidelined, found.dead) == (0, 0, 0, 0)
    assert found.oldest is None


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


async def test_what_an_instance_has_waits_or_is_in_hand(mesh: Mesh, control: Bus) -> None:
    """A checkpoint is written as messages end: until then what was read counts as waiting."""
    memory = Memory("busy", concurrency=2)
    memory.gate.clear()
    running = mesh.start(mesh.worker(memory.service))
    async with mesh.program() as acme:
        await send(acme, memory, *"abcdef")
        found = await of_service(control, "busy")
        assert found.waiting + found.in_hand == 6
        tenant = await of_tenant(control, acme.id, "busy")
        assert tenant.waiting + tenant.in_hand == 6
        await mesh.set(memory.gate)
        await eventually(lambda: _is(control, "busy", 0, 0))
    await running.stop()


async def test_a_tenant_that_is_retried_is_sidelined(mesh: Mesh, control: Bus) -> None:
    memory = Stubborn("patient", retry=Retry(tries=5, first=60.0, most=60.0))
    running = mesh.start(mesh.worker(memory.service))
    async with mesh.neighbours() as (acme, globex):
        memory.refuses.add(acme.id)
        await send(acme, memory, "one", "two", "three")
        await eventually(lambda: _is_sidelined(control, acme.id, "patient"))
        await send(globex, memory, "other")
        await eventually(lambda: _is(control, "patient", 3, 0))
        found = await of_tenant(control, acme.id, "patient")
        assert (found.sidelined, found.failed, found.code) == ("failed", 1, "handler_failed")
        assert (found.waiting, found.in_hand) == (3, 0)
        assert found.retry_at is not None
        assert found.since is not None
        assert found.retry_at > found.since
        assert await of_tenant(control, globex.id, "patient") == TenantLag(
            service="patient", waiting=0, dead=0
        )
        assert (await of_service(control, "patient")).sidelined == 1
    await running.stop()


async def test_who_runs_owns_the_partitions(mesh: Mesh, control: Bus) -> None:
    memory = Memory("owned")
    running = mesh.start(mesh.worker(memory.service))
    await eventually(lambda: _are_owned(control, "owned"))
    assert (await of_service(control, "owned")).instances == 1
    await running.stop()


async def test_nobody_owns_the_partitions_of_a_service_that_has_stopped(
    mesh: Mesh, control: Bus
) -> None:
    await known(mesh, "left")
    found = await of_service(control, "left")
    assert found.instances == 0
    assert {part.owner for part in found.partitions} == {""}


async def test_dead_letters_count(mesh: Mesh, control: Bus) -> None:
    memory = await known(mesh, "mortal")
    async with mesh.program() as acme, mesh.program() as globex:
        for seq in await send(acme, memory, "one", "two"):
            await lay(control, acme.id, await stored(control, seq))
        assert (await of_service(control, "mortal")).dead == 2
        assert (await of_tenant(control, acme.id, "mortal")).dead == 2
        assert (await of_tenant(control, globex.id, "mortal")).dead == 0


async def _is_sidelined(control: Bus, tenant: str, service: str) -> bool:
    return (await of_tenant(control, tenant, service)).sidelined == "failed"


async def _are_owned(control: Bus, service: str) -> bool:
    parts = (await of_service(control, service)).partitions
    return len(parts) == PARTITIONS and len({part.owner for part in parts} - {""}) == 1


async def _is(control: Bus, service: str, waiting: int, in_hand: int) -> bool:
    found = await of_service(control, service)
    return (found.waiting, found.in_hand) == (waiting, in_hand)
