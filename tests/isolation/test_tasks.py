"""What runs for one message, and what it leaves behind, is never the next one's."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from tenantry import Context, Service
from tenantry.bus import Bus
from tenantry.letters import Letters, Selection
from tests.isolation.cases import Layer, can, cannot
from tests.isolation.hostile import STEPS, Hostile, hostile
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import Note, Texts

_left: ContextVar[str] = ContextVar("left", default="")


def leaving() -> tuple[Service, list[str]]:
    """A service whose handlers leave a mark, and what marks they have found."""
    service = Service("leaving", version="1.0.0")
    found: list[str] = []

    @service.command("mark", public=True)
    async def mark(_ctx: Context, note: Note) -> None:
        """Note the mark that is there, then leave one."""
        found.append(_left.get())
        _left.set(note.text)

    @service.request("ask", public=True)
    async def ask(_ctx: Context, note: Note) -> Note:
        """The same, answered."""
        before = _left.get()
        _left.set(note.text)
        return Note(before)

    @service.request("texts", public=True)
    async def texts(_ctx: Context) -> Texts:
        """What marks were found."""
        return Texts(tuple(found))

    return service, found


@pytest.fixture(scope="module")
def found(mesh: Mesh) -> list[str]:
    service, found = leaving()
    mesh.start(mesh.worker(service))
    return found


@cannot(43, Layer.RUNTIME)
async def test_a_command_finds_nothing_of_the_one_before(
    mesh: Mesh, found: list[str], acme: Program
) -> None:
    await mesh.ready(acme, "leaving.texts")
    found.clear()
    for number in range(3):
        await acme.client.publish("leaving.mark", {"text": f"mark {number}"})

    async def all_handled() -> bool:
        return len(found) == 3

    await eventually(all_handled)
    assert found == ["", "", ""]


@cannot(43, Layer.RUNTIME)
async def test_a_request_finds_nothing_of_the_one_before(
    mesh: Mesh, found: list[str], acme: Program
) -> None:
    await mesh.ready(acme, "leaving.texts")
    answers = [(await acme.ask("leaving.ask", {"text": "mark"})).json["text"] for _ in range(3)]
    assert answers == ["", "", ""]


# hostile background work


@pytest.fixture(scope="module")
def kept(mesh: Mesh) -> Hostile:
    service, kept = hostile("tasks")
    mesh.start(mesh.worker(service))
    return kept


@cannot(43, Layer.RUNTIME)
async def test_background_work_is_of_its_own_message_or_of_none(
    mesh: Mesh, kept: Hostile, acme: Program, globex: Program
) -> None:
    await mesh.ready(acme, "tasks.whose")

    async def whose(program: Program) -> None:
        found = (await program.ask("tasks.whose")).json["texts"]
        task, to_thread, executor, copied, thread, callback = found
        assert {task, to_thread, copied, callback} == {program.id}
        assert {executor, thread} == {""}  # Python carries no context there

    await asyncio.gather(*(whose(each) for _ in range(20) for each in (acme, globex)))


# cancelled, and ended oddly


@cannot(44, Layer.RUNTIME)
@pytest.mark.parametrize("step", range(STEPS))
async def test_a_request_cancelled_at_any_await_leaves_nothing_for_the_next(
    mesh: Mesh, kept: Hostile, control: Bus, step: int
) -> None:
    async with mesh.neighbours() as (acme, globex):
        await mesh.ready(acme, "tasks.waver")
        cut = acme.ask("tasks.waver", {"text": "of acme", "count": step})
        whole = globex.ask("tasks.waver", {"text": "of globex", "count": STEPS})
        first, second = await asyncio.gather(cut, whole)
        assert first.code in {"unavailable", "handler_failed"}
        assert set(second.json["texts"]) == {globex.id}
        assert await journal(control, acme.id, "tasks.told") == []
        assert await globex.texts("tasks") == ["of globex"]


@can(44)
async def test_a_request_that_is_not_cancelled_is_answered(
    mesh: Mesh, kept: Hostile, acme: Program, control: Bus
) -> None:
    await mesh.ready(acme, "tasks.waver")
    answer = await acme.ask("tasks.waver", {"text": "whole", "count": STEPS})
    assert set(answer.json["texts"]) == {acme.id}
    assert len(await journal(control, acme.id, "tasks.told")) == 1


@cannot(44, Layer.RUNTIME)
async def test_commands_that_cancel_themselves_hold_up_nobody(
    mesh: Mesh, kept: Hostile, control: Bus
) -> None:
    """More of them than a lane has in hand at a time: none may keep its place."""
    async with mesh.neighbours() as (acme, globex):
        await mesh.ready(acme, "tasks.waver")
        for number in range(20):
            body = {"text": "of acme", "count": number % STEPS}
            await acme.client.publish("tasks.waver_stored", body)
        await globex.client.publish("tasks.waver_stored", {"text": "of globex", "count": STEPS})
        await eventually(lambda: _done(kept, globex.id))
        await acme.client.publish("tasks.waver_stored", {"text": "whole", "count": STEPS})
        await eventually(lambda: _done(kept, acme.id))
        assert len(await _letters(control, acme)) == 20
        assert await acme.texts("tasks") == ["whole"]
        assert await globex.texts("tasks") == ["of globex"]


@cannot(79, Layer.RUNTIME)
async def test_commands_that_raise_what_is_no_exception_hold_up_nobody(
    mesh: Mesh, kept: Hostile, control: Bus
) -> None:
    async with mesh.neighbours() as (acme, globex):
        await mesh.ready(acme, "tasks.waver")
        for _ in range(20):
            await acme.client.publish("tasks.waver_stored", {"text": "odd"})
        await globex.client.publish("tasks.waver_stored", {"text": "of globex", "count": STEPS})
        await eventually(lambda: _done(kept, globex.id))
        await eventually(lambda: _has_letters(control, acme, 20))


@cannot(79, Layer.RUNTIME)
async def test_a_request_whose_handler_raises_what_is_no_exception_is_answered(
    mesh: Mesh, kept: Hostile, acme: Program, globex: Program
) -> None:
    await mesh.ready(acme, "tasks.waver")
    assert (await acme.ask("tasks.waver", {"text": "odd"})).code == "handler_failed"
    answer = await globex.ask("tasks.waver", {"text": "whole", "count": STEPS})
    assert set(answer.json["texts"]) == {globex.id}


@can(79)
async def test_after_an_odd_end_the_tenants_own_next_message_is_handled(
    mesh: Mesh, kept: Hostile, acme: Program
) -> None:
    await mesh.ready(acme, "tasks.waver")
    await acme.client.publish("tasks.waver_stored", {"text": "odd"})
    await acme.client.publish("tasks.waver_stored", {"text": "whole", "count": STEPS})
    await eventually(lambda: _done(kept, acme.id))


async def _done(kept: Hostile, tenant: str) -> bool:
    return tenant in kept.done


async def _letters(control: Bus, program: Program) -> list[int]:
    found = Letters(control).select(Selection(tenant=program.id))
    return [each.number async for each in found]


async def _has_letters(control: Bus, program: Program, count: int) -> bool:
    return len(await _letters(control, program)) == count
