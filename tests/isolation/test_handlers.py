"""A service's author against its context: what a handler does ends up with its own tenant."""

from __future__ import annotations

import pytest

from tenantry.bus import Bus
from tenantry.letters import Letters, Selection
from tests.isolation.cases import Layer, can, cannot
from tests.isolation.hostile import USES, Hostile, hostile
from tests.mesh import Mesh, Program, eventually, journal

FOREIGN = ["stage", "stage_event", "stage_request", "stage_letter", "stage_schedule"]
"""Ways past the library's methods, into what is published in the end."""


@pytest.fixture(scope="module")
def kept(mesh: Mesh) -> Hostile:
    service, kept = hostile()
    mesh.start(mesh.worker(service))
    return kept


@pytest.fixture(autouse=True)
async def ready(mesh: Mesh, kept: Hostile, acme: Program, globex: Program) -> None:
    for program in (acme, globex):
        await mesh.ready(program, "hostile.cross")


async def cross(program: Program, how: str, other: Program) -> str:
    """What the asker is told; empty where nothing was refused."""
    return (await program.ask("hostile.cross", {"how": how, "other": other.id})).code


# what a handler sends


@cannot(45, Layer.GRAMMAR)
@pytest.mark.parametrize(
    "how", ["send", "send_subject", "send_up", "send_later", "ask", "emit_lines", "cancel"]
)
async def test_nothing_can_be_named_that_is_another_tenants(
    acme: Program, globex: Program, control: Bus, how: str
) -> None:
    before = await journal(control, globex.id)
    assert await cross(acme, how, globex)
    assert await journal(control, globex.id) == before


@cannot(45, Layer.RUNTIME, Layer.CONTEXT)
@pytest.mark.parametrize("how", [*FOREIGN, "stage_state", "stage_timer"])
async def test_nothing_is_published_under_another_tenant(
    acme: Program, globex: Program, control: Bus, how: str
) -> None:
    before = await journal(control, globex.id)
    assert await cross(acme, how, globex) == "handler_failed"
    assert await journal(control, globex.id) == before
    assert await letters(control, globex) == []
    assert await globex.texts() == []


@cannot(9, Layer.RUNTIME)
async def test_nothing_is_published_under_a_tenant_whose_id_begins_with_its_own(
    mesh: Mesh, control: Bus
) -> None:
    async with mesh.program("crosser") as short, mesh.program("crosser-two") as long:
        await mesh.ready(short, "hostile.cross")
        before = await journal(control, long.id)
        assert await cross(short, "stage", long) == "handler_failed"
        assert await journal(control, long.id) == before


@cannot(45, Layer.RUNTIME, Layer.CONTEXT)
async def test_a_command_publishes_nothing_under_another_tenant_and_becomes_a_letter(
    acme: Program, globex: Program, control: Bus
) -> None:
    before = await journal(control, globex.id)
    await acme.client.publish("hostile.cross_stored", {"how": "stage", "other": globex.id})
    await eventually(lambda: has_letters(control, acme, 1))
    assert await journal(control, globex.id) == before


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that publish whatever has been staged."""
    monkeypatch.setattr("tenantry.runtime.outbox._check_own", lambda *_: None)


@cannot(45, Layer.CONTEXT, without=Layer.RUNTIME)
@pytest.mark.parametrize("how", ["stage", "stage_event"])
async def test_what_is_published_under_another_tenant_is_handled_by_nobody(
    acme: Program, globex: Program, control: Bus, unchecked: None, how: str
) -> None:
    assert await cross(acme, how, globex) == ""
    await eventually(lambda: has_letters(control, globex, 1))
    (letter,) = await letters(control, globex)
    assert letter == "bad_context"
    assert [await globex.texts(), await globex.texts("followers")] == [[], []]


@cannot(62, Layer.CONTROL, without=Layer.RUNTIME)
async def test_what_is_scheduled_under_another_tenant_is_sent_by_nobody(
    acme: Program, globex: Program, control: Bus, unchecked: None
) -> None:
    before = await journal(control, globex.id)
    assert await cross(acme, "stage_schedule", globex) == ""
    await eventually(lambda: none_scheduled(control, globex))
    assert await journal(control, globex.id) == before


@cannot(77, Layer.CONTEXT, without=Layer.RUNTIME)
async def test_a_context_whose_claims_are_exchanged_sends_with_the_token_it_had(
    acme: Program, globex: Program, control: Bus
) -> None:
    assert await cross(acme, "reflect", globex) == ""
    await eventually(lambda: has_letters(control, globex, 1))
    assert await letters(control, globex) == ["bad_context"]
    assert await globex.texts() == []


@can(45)
@can(77)
async def test_a_handler_sends_to_its_own_tenant(acme: Program, globex: Program) -> None:
    assert await cross(acme, "own", globex) == ""

    async def arrived() -> bool:
        return await acme.texts() == ["crossed"]

    await eventually(arrived)
    assert await globex.texts() == []


@cannot(77, Layer.RUNTIME)
@pytest.mark.parametrize(
    "how", ["tenant", "service", "claims", "token", "turn", "plan", "roles", "new"]
)
async def test_whose_a_context_is_can_not_be_set(
    acme: Program, globex: Program, control: Bus, how: str
) -> None:
    assert await cross(acme, how, globex) == "handler_failed"
    assert await acme.texts() == await globex.texts() == []


# what a handler keeps


async def use_kept(program: Program, how: str) -> str:
    return (await program.ask("hostile.use_kept", {"how": how})).code


@cannot(46, Layer.RUNTIME)
@pytest.mark.parametrize("how", USES)
async def test_a_context_that_was_kept_is_of_no_use_to_another_tenants_message(
    acme: Program, globex: Program, control: Bus, how: str
) -> None:
    await acme.ask("hostile.write", {"how": "secret", "text": "of acme"})
    await acme.ask("hostile.keep")
    before = await journal(control, acme.id)
    assert await use_kept(globex, how) == "handler_failed"
    assert await journal(control, acme.id) == before
    assert await acme.texts("hostile") == ["of acme"]


@cannot(46, Layer.RUNTIME)
@pytest.mark.parametrize("how", USES)
async def test_nor_is_one_whose_message_is_still_at_work(
    mesh: Mesh, kept: Hostile, acme: Program, globex: Program, control: Bus, how: str
) -> None:
    """As where an author keeps the context in an attribute of the service."""
    await acme.ask("hostile.write", {"how": "secret", "text": "of acme"})
    kept.context = None
    await acme.plain.publish(f"tenant.{acme.id}.hostile.hold", b"{}")

    async def held() -> bool:
        return kept.context is not None

    await eventually(held)
    before = await journal(control, acme.id)
    try:
        assert await use_kept(globex, how) == "handler_failed"
    finally:
        await mesh.set(kept.gate)
    assert await journal(control, acme.id) == before
    assert await acme.texts("hostile") == ["of acme"]
    kept.gate.clear()


@can(43)
@can(46)
async def test_within_its_message_a_context_may_be_used_in_a_thread(acme: Program) -> None:
    found = (await acme.ask("hostile.whose")).json["texts"]
    assert found[1] == acme.id


async def letters(control: Bus, program: Program) -> list[str]:
    """Why each dead letter of a tenant was given up."""
    found = Letters(control).select(Selection(tenant=program.id))
    return [each.about.reason async for each in found]


async def has_letters(control: Bus, program: Program, count: int) -> bool:
    return len(await letters(control, program)) == count


async def none_scheduled(control: Bus, program: Program) -> bool:
    from tenantry import schedules

    return await schedules.find(control, program.id) == []
