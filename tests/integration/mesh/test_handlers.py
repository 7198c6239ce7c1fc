"""What a handler can do through its context, and what it can't."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tenantry import Context, Service, current, errors
from tenantry.bus import Bus
from tenantry.context.context import ContextClosed
from tests.mesh import Answer, Mesh, Program, eventually, journal
from tests.services import Note, Noted, Texts, noted


async def test_a_context_ends_with_its_message(mesh: Mesh, acme: Program) -> None:
    service = Service("keeper")
    done = service.event("done", Note)
    kept: list[Context] = []

    @service.request("keep", public=True)
    async def keep(ctx: Context) -> None:
        kept.append(ctx)

    running = mesh.start(mesh.worker(service))
    await mesh.ready(acme, "keeper.keep")
    await acme.ask("keeper.keep")
    ctx = kept[-1]

    async def attempt(use: Callable[[], Any]) -> None:
        with pytest.raises(ContextClosed):
            result = use()
            if isinstance(result, Awaitable):
                await result

    for use in (
        lambda: ctx.emit(done, Note("x")),
        lambda: ctx.send("notes.remember", Note("x")),
        lambda: ctx.request("notes.private", Note("x"), type=Note),
        lambda: ctx.state,
    ):
        await mesh.aside(attempt(use))
    await running.stop()


async def test_a_task_that_outlives_its_message_cannot_act_in_its_name(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    service = Service("outliver")
    done = service.event("done", Note)
    gate, ended = asyncio.Event(), asyncio.Event()
    raised: list[BaseException] = []
    tasks: list[asyncio.Task[None]] = []

    async def later() -> None:
        await gate.wait()
        try:
            current().emit(done, Note("late"))
        except ContextClosed as error:
            raised.append(error)
        ended.set()

    @service.request("leave", public=True)
    async def leave(_ctx: Context) -> None:
        tasks.append(asyncio.create_task(later()))

    running = mesh.start(mesh.worker(service))
    await mesh.ready(acme, "outliver.leave")
    await acme.ask("outliver.leave")
    await mesh.set(gate)
    await mesh.aside(ended.wait())
    assert raised
    assert await journal(control, acme.id, "outliver.done") == []
    await running.stop()


async def test_there_is_no_context_outside_of_a_handler() -> None:
    with pytest.raises(LookupError):
        current()


async def test_an_event_of_another_service_cannot_be_emitted(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    service = Service("forger")

    @service.request("forge", public=True)
    async def forge(ctx: Context) -> None:
        ctx.emit(noted, Noted("forged"))

    running = mesh.start(mesh.worker(service))
    await mesh.ready(acme, "forger.forge")
    assert (await acme.ask("forger.forge")).code == "handler_failed"
    assert await journal(control, acme.id, "*.noted") == []
    await running.stop()


async def test_an_event_of_the_wrong_type_cannot_be_emitted(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    service = Service("sloppy")
    done = service.event("done", Note)

    @service.request("emit", public=True)
    async def emit(ctx: Context) -> None:
        ctx.emit(done, Texts())  # type: ignore[arg-type]

    running = mesh.start(mesh.worker(service))
    await mesh.ready(acme, "sloppy.emit")
    assert (await acme.ask("sloppy.emit")).code == "handler_failed"
    assert await journal(control, acme.id, "sloppy.done") == []
    await running.stop()


async def test_a_handler_sends_commands_to_other_services(mesh: Mesh, acme: Program) -> None:
    service = Service("sender")

    @service.request("send", public=True)
    async def send(ctx: Context) -> None:
        for number in range(3):
            ctx.send("notes.remember", Note(str(number)))

    running = mesh.start(mesh.worker(service))
    await mesh.ready(acme, "sender.send")
    await acme.ask("sender.send")
    await eventually(lambda: _remembers(acme, ["0", "1", "2"]))
    await running.stop()


@pytest.mark.parametrize(
    ("how", "code"),
    [("reject", "conflict"), ("raise", "handler_failed"), ("missing", "unavailable")],
)
async def test_what_another_service_answers_reaches_the_asker(
    mesh: Mesh, acme: Program, how: str, code: str
) -> None:
    service = Service(f"passer_{how}")

    @service.request("ask", public=True)
    async def ask(ctx: Context) -> Note:
        action = "notes.bad" if how != "missing" else "nobody.nothing"
        return await ctx.request(action, Note(how), type=Note)

    running = mesh.start(mesh.worker(service))
    await eventually(lambda: _is(acme, f"{service.name}.ask", code))
    await running.stop()


async def test_a_handler_may_handle_what_another_service_answers(mesh: Mesh, acme: Program) -> None:
    service = Service("catcher")

    @service.request("ask", public=True)
    async def ask(ctx: Context) -> Note:
        try:
            return await ctx.request("notes.bad", Note("reject"), type=Note)
        except errors.Conflict as conflict:
            return Note(conflict.message)

    running = mesh.start(mesh.worker(service))
    await mesh.ready(acme, "catcher.ask")
    assert (await acme.ask("catcher.ask")).json["text"] == "as asked"
    await running.stop()


async def test_state_is_the_services_own(mesh: Mesh, acme: Program) -> None:
    service = Service("curious")

    @service.request("look", public=True)
    async def look(ctx: Context) -> Texts:
        entry = await ctx.state.get("texts", Texts)
        return entry.value if entry else Texts(("nothing",))

    running = mesh.start(mesh.worker(service))
    await mesh.ready(acme, "curious.look")
    await acme.client.publish("notes.remember", {"text": "secret"})
    await eventually(lambda: _remembers(acme, ["secret"]))
    assert (await acme.ask("curious.look")).json["texts"] == ["nothing"]
    await running.stop()


@pytest.mark.parametrize("name", ["", "*", ">", "a.>", "..", "../x", "a b", "x" * 201, "a\n", "ä"])
async def test_state_cannot_be_named_out_of_its_place(mesh: Mesh, acme: Program, name: str) -> None:
    async with _climber(mesh, acme) as ask:
        assert (await ask(name)).code == "bad_message"


@pytest.mark.parametrize("name", ["x", "a.b.c", "A-1_=", "0"])
async def test_state_has_names_of_several_parts(mesh: Mesh, acme: Program, name: str) -> None:
    async with _climber(mesh, acme) as ask:
        assert (await ask(name)).code == ""


async def test_a_lifespan_lives_as_long_as_the_worker(mesh: Mesh, acme: Program) -> None:
    service, life = Service("living"), []

    @service.lifespan
    async def lifespan() -> AsyncIterator[str]:
        life.append("begun")
        yield "resource"
        life.append("ended")

    @service.request("resource", public=True)
    async def resource(ctx: Context) -> Note:
        return Note(ctx.resources)

    running = mesh.start(mesh.worker(service))
    await mesh.ready(acme, "living.resource")
    assert (await acme.ask("living.resource")).json["text"] == "resource"
    assert life == ["begun"]
    await running.stop()
    assert life == ["begun", "ended"]


async def test_two_services_in_one_worker_each_have_their_own(mesh: Mesh, acme: Program) -> None:
    pair = [Service(name) for name in ("left", "right")]
    for service in pair:

        @service.lifespan
        async def lifespan(name: str = service.name) -> AsyncIterator[str]:
            yield name

        @service.request("who", public=True)
        async def who(ctx: Context) -> Note:
            return Note(f"{ctx.service}:{ctx.resources}")

    running = mesh.start(mesh.worker(*pair))
    for name in ("left", "right"):
        await mesh.ready(acme, f"{name}.who")
        assert (await acme.ask(f"{name}.who")).json["text"] == f"{name}:{name}"
    await running.stop()


async def test_a_follower_emits_as_its_own_service(mesh: Mesh, acme: Program, control: Bus) -> None:
    service = Service("echoer")
    again = service.event("again", Noted)

    @service.on(noted)
    async def follow(ctx: Context, event: Noted) -> None:
        ctx.emit(again, event)

    running = mesh.start(mesh.worker(service))
    await acme.ask("notes.emit", {"text": "x", "count": 1})
    await eventually(lambda: _has(control, acme.id, "echoer.again"))
    (entry,) = await journal(control, acme.id, "echoer.again")
    assert entry.data == b'{"text":"x0","attempt":1}'
    await running.stop()


@asynccontextmanager
async def _climber(
    mesh: Mesh, program: Program
) -> AsyncIterator[Callable[[str], Awaitable[Answer]]]:
    """A service whose state's name its asker chooses."""
    service = Service("climber")

    @service.request("climb", public=True)
    async def climb(ctx: Context, note: Note) -> None:
        await ctx.state.put(note.text, note)

    running = mesh.start(mesh.worker(service))
    await mesh.ready(program, "climber.climb")
    yield lambda name: program.ask("climber.climb", {"text": name})
    await running.stop()


async def _remembers(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts


async def _is(program: Program, action: str, code: str) -> bool:
    return (await program.ask(action)).code == code


async def _has(control: Bus, tenant: str, name: str) -> bool:
    return bool(await journal(control, tenant, name))
