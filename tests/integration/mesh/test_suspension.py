"""A tenant that is suspended, resumed or deleted, as its programs meet it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tenantry import Context, Service
from tenantry.bus import Bus
from tenantry.journal.erase import erase
from tenantry.messages import TenantSuspended
from tenantry.rows import suspended
from tenantry.subjects import partition
from tests.integration.mesh.counting import Owners
from tests.mesh import Mesh, Program, eventually
from tests.services import Note

NOTE = {"text": "x"}
ACTIONS = ["notes.echo", "notes.remember", "notes.nothing"]


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_suspended_tenant_is_refused(mesh: Mesh, acme: Program, action: str) -> None:
    await mesh.control("suspend", id=acme.id)
    await eventually(lambda: _is(acme, "tenant_suspended"))
    answer = await acme.ask(action, NOTE)
    assert (answer.code, answer.json["status"]) == ("tenant_suspended", 403)


async def test_the_reason_is_not_told(mesh: Mesh, acme: Program) -> None:
    await mesh.control("suspend", id=acme.id, reason="has not paid")
    await eventually(lambda: _is(acme, "tenant_suspended"))
    assert b"paid" not in (await acme.ask("notes.echo", NOTE)).data


async def test_a_resumed_tenant_is_served_again(mesh: Mesh, acme: Program) -> None:
    await mesh.control("suspend", id=acme.id)
    await eventually(lambda: _is(acme, "tenant_suspended"))
    await mesh.control("resume", id=acme.id)
    await eventually(lambda: _is(acme, ""))


async def test_a_suspended_tenant_keeps_its_connections(mesh: Mesh, acme: Program) -> None:
    await mesh.control("suspend", id=acme.id)
    await eventually(lambda: _is(acme, "tenant_suspended"))
    assert acme.plain.is_connected


async def test_others_do_not_feel_a_suspension(mesh: Mesh, acme: Program, globex: Program) -> None:
    await mesh.control("suspend", id=acme.id)
    await eventually(lambda: _is(acme, "tenant_suspended"))
    assert await _is(globex, "")


async def test_what_was_taken_before_a_suspension_is_still_done(mesh: Mesh, acme: Program) -> None:
    for number in range(20):
        await acme.client.publish("notes.remember", {"text": str(number)})
    await mesh.control("suspend", id=acme.id)
    await mesh.control("resume", id=acme.id)
    texts = [str(number) for number in range(20)]
    await eventually(lambda: _is(acme, ""))
    await eventually(lambda: _remembers(acme, texts))


class Gated:
    """A service that handles a note when its gate is open, and remembers whose and which."""

    def __init__(self) -> None:
        self.service = Service("gated", version="1.0.0")
        self.handled: list[tuple[str, str]] = []
        self.began = False
        self.gate = asyncio.Event()
        self.service.command("note", public=True)(self.note)

    async def note(self, ctx: Context, note: Note) -> None:
        self.began = True
        if note.text == "first":
            await self.gate.wait()
        self.handled.append((ctx.tenant, note.text))

    async def has_begun(self) -> bool:
        return self.began

    async def has(self, program: Program, *texts: str) -> None:
        async def check() -> bool:
            return [text for whose, text in self.handled if whose == program.id] == list(texts)

        await eventually(check)


async def _waits(owners: Owners, tenant: str) -> bool:
    rows = (await owners.checkpoint(partition(tenant))).open
    return tenant in rows and rows[tenant].code == "tenant_suspended"


async def test_what_a_suspended_tenant_has_stored_waits_until_it_is_resumed(
    mesh: Mesh, control: Bus
) -> None:
    gated, owners = Gated(), Owners(control, "gated")

    running = mesh.start(mesh.worker(gated.service))
    async with mesh.neighbours() as (acme, globex):
        await _is_suspended_while(mesh, gated, acme, gated.has_begun)
        await eventually(lambda: _waits(owners, acme.id))
        await globex.client.publish("gated.note", {"text": "mine"})
        await gated.has(globex, "mine")
        await gated.has(acme, "first")  # it ran already
        await mesh.control("resume", id=acme.id)
        await gated.has(acme, "first", "second", "third")
    await running.stop()


async def test_what_waits_for_a_tenant_to_be_resumed_waits_over_a_restart_too(
    mesh: Mesh, control: Bus
) -> None:
    gated, owners = Gated(), Owners(control, "gated")

    running = mesh.start(mesh.worker(gated.service))
    async with mesh.program() as acme:
        await _is_suspended_while(mesh, gated, acme, gated.has_begun)
        await eventually(lambda: _waits(owners, acme.id))
        await running.stop()
        again = Gated()
        running = mesh.start(mesh.worker(again.service))
        await eventually(lambda: _is_owned(owners, acme.id))
        assert await _waits(owners, acme.id)
        assert again.handled == []
        await mesh.control("resume", id=acme.id)
        await again.has(acme, "second", "third")
    await running.stop()


async def test_what_waits_for_a_tenant_to_be_resumed_can_be_erased(
    mesh: Mesh, control: Bus
) -> None:
    gated, owners = Gated(), Owners(control, "gated")

    async def is_gone() -> bool:
        return acme.id not in (await owners.checkpoint(partition(acme.id))).open

    running = mesh.start(mesh.worker(gated.service))
    async with mesh.program() as acme:
        await _is_suspended_while(mesh, gated, acme, gated.has_begun)
        await eventually(lambda: _waits(owners, acme.id))
        await erase(control, acme.id)
        await eventually(is_gone)
    await running.stop()
    assert [text for _, text in gated.handled] == ["first"]


async def _is_suspended_while(
    mesh: Mesh, gated: Gated, program: Program, began: Callable[[], Awaitable[bool]]
) -> None:
    """Suspend a tenant while its first command runs, and two more wait for it."""
    await eventually(lambda: _is(program, "unknown_action", "gated.nothing"))
    for text in ("first", "second", "third"):
        await program.client.publish("gated.note", {"text": text})
    await eventually(began)
    await mesh.control("suspend", id=program.id)
    await eventually(lambda: _is(program, "tenant_suspended"))
    await eventually(lambda: _is_known_to_services(mesh, program.id))
    await mesh.set(gated.gate)


async def _is_owned(owners: Owners, tenant: str) -> bool:
    return (await owners.checkpoint(partition(tenant))).owner not in ("", "left")


async def _is_known_to_services(mesh: Mesh, tenant: str) -> bool:
    async with await mesh.insider("service", "gated") as bus:
        table = suspended(bus)
        await table.start()
        try:
            return tenant in table.rows
        finally:
            await table.stop()


async def test_the_events_of_its_own_life_are_handled_while_it_is_suspended(
    mesh: Mesh, acme: Program
) -> None:
    service, heard = Service("watcher"), list[str]()

    @service.on("tenants.tenant_suspended")
    async def follow(ctx: Context, _event: TenantSuspended) -> None:
        heard.append(ctx.tenant)

    async def has_heard() -> bool:
        return acme.id in heard

    running = mesh.start(mesh.worker(service))
    await mesh.control("suspend", id=acme.id)
    await eventually(has_heard)
    await running.stop()


async def _is(program: Program, code: str, action: str = "notes.echo") -> bool:
    return (await program.ask(action, NOTE)).code == code


async def _remembers(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts
