"""What a handler can do through its context, and what it can't."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tenantry import Context, Service, current, errors
from tenantry.bus import Bus
from tenantry.context.context import ContextClosed
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import Note, Noted, Texts, noted

odd = Service("odd")
done = odd.event("done", Note)
kept: list[Context] = []
tasks: list[asyncio.Task[None]] = []
raised: list[BaseException] = []
gate, ended = asyncio.Event(), asyncio.Event()


@odd.request("keep", public=True)
async def keep(ctx: Context) -> None:
    """Hand the context out."""
    kept.append(ctx)


@odd.request("leave", public=True)
async def leave(_ctx: Context) -> None:
    """Leave a task behind that acts later."""

    async def later() -> None:
        await gate.wait()
        try:
            current().emit(done, Note("late"))
        except ContextClosed as error:
            raised.append(error)
        ended.set()

    tasks.append(asyncio.create_task(later()))


@odd.request("forge", public=True)
async def forge(ctx: Context) -> None:
    """Emit another service's event."""
    ctx.emit(noted, Noted("forged"))


@odd.request("emit_wrong", public=True)
async def emit_wrong(ctx: Context) -> None:
    """Emit what the event is not."""
    ctx.emit(done, Texts())  # type: ignore[arg-type]


@odd.request("finish", public=True)
async def finish(ctx: Context, note: Note) -> None:
    """Emit the service's own event."""
    ctx.emit(done, note)


@odd.request("misuse", public=True)
async def misuse(ctx: Context, note: Note) -> None:
    """Leave, ask or keep what can't be."""
    match note.text:
        case "emit_large":
            ctx.emit(done, Note("x" * 1_100_000))
        case "send_large":
            ctx.send("notes.remember", Note("x" * 1_100_000))
        case "ask_large":
            await ctx.request("notes.echo", Note("x" * 1_100_000), type=Note)
        case "keep_large":
            await ctx.state.put("large", "x" * 1_100_000)
        case "emit_nan":
            ctx.emit(done, Note("x", float("nan")))  # type: ignore[arg-type]
        case "send_nan":
            ctx.send("notes.remember", {"text": float("inf")})
        case "ask_nan":
            await ctx.request("notes.echo", [float("nan")], type=Note)
        case "keep_nan":
            await ctx.state.put("nan", {"x": [1.0, float("-inf")]})
        case "send_wrong":
            ctx.send("No.Such Name", note)
        case "ask_wrong":
            await ctx.request("No.Such Name", note, type=Note)


@odd.request("send", public=True)
async def send(ctx: Context) -> None:
    """Send commands to another service."""
    for number in range(3):
        ctx.send("notes.remember", Note(str(number)))


@odd.request("ask", public=True)
async def ask(ctx: Context, note: Note) -> Note:
    """Ask another service, which may fail."""
    action = "notes.bad" if note.text != "missing" else "nobody.nothing"
    return await ctx.request(action, note, type=Note)


@odd.request("ask_carefully", public=True)
async def ask_carefully(ctx: Context) -> Note:
    """Ask another service, and handle its failure."""
    try:
        return await ctx.request("notes.bad", Note("reject"), type=Note)
    except errors.Conflict as conflict:
        return Note(f"caught: {conflict.message}")


@odd.request("look", public=True)
async def look(ctx: Context) -> Texts:
    """What this service keeps under a name that another one uses."""
    entry = await ctx.state.get("texts", Texts)
    return entry.value if entry else Texts(("nothing",))


@odd.request("climb", public=True)
async def climb(ctx: Context, note: Note) -> None:
    """Keep something under a name that the asker chooses."""
    await ctx.state.put(note.text, note)


@pytest.fixture(scope="module", autouse=True)
def odd_worker(mesh: Mesh) -> Iterator[None]:
    running = mesh.start(mesh.worker(odd))
    yield
    mesh.end(running)


@pytest.fixture(autouse=True)
async def odd_is_known(mesh: Mesh, acme: Program) -> None:
    await mesh.ready(acme, "odd.keep")


async def test_a_context_ends_with_its_message(mesh: Mesh, acme: Program) -> None:
    await acme.ask("odd.keep")
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


async def test_a_task_that_outlives_its_message_cannot_act_in_its_name(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    await acme.ask("odd.leave")
    await mesh.set(gate)
    await mesh.aside(ended.wait())
    assert raised
    assert await journal(control, acme.id, "odd.done") == []


async def test_there_is_no_context_outside_of_a_handler() -> None:
    with pytest.raises(LookupError):
        current()


async def test_an_event_of_another_service_cannot_be_emitted(acme: Program, control: Bus) -> None:
    assert (await acme.ask("odd.forge")).code == "handler_failed"
    assert await journal(control, acme.id, "*.noted") == []


async def test_an_event_of_the_wrong_type_cannot_be_emitted(acme: Program, control: Bus) -> None:
    assert (await acme.ask("odd.emit_wrong")).code == "handler_failed"
    assert await journal(control, acme.id, "odd.done") == []


@pytest.mark.parametrize(
    "how",
    [
        "emit_large",
        "send_large",
        "ask_large",
        "keep_large",
        "emit_nan",
        "send_nan",
        "ask_nan",
        "keep_nan",
        "send_wrong",
        "ask_wrong",
    ],
)
async def test_what_a_handler_does_wrong_is_not_its_askers_fault(acme: Program, how: str) -> None:
    with capture_logs() as logs:
        answer = await acme.ask("odd.misuse", {"text": how})
    assert (answer.code, answer.json["status"]) == ("handler_failed", 500)
    assert "1,100,000" not in answer.data.decode()
    assert f"tenant.{acme.id}" not in answer.data.decode()
    failed = [each for each in logs if each["event"] == "handler failed"]
    kinds = {"large": "TooLarge", "nan": "ValueError", "wrong": "DeclarationError"}
    kind = kinds[how.partition("_")[2]]
    assert [type(each["exc_info"]).__name__ for each in failed] == [kind]


async def test_a_handler_sends_commands_to_other_services(acme: Program) -> None:
    await acme.ask("odd.send")
    await eventually(lambda: _remembers(acme, ["0", "1", "2"]))


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("reject", "conflict"),
        ("raise", "handler_failed"),
        ("hang", "deadline_exceeded"),
        ("missing", "handler_failed"),
    ],
)
async def test_what_another_service_answers_reaches_the_asker(
    acme: Program, how: str, code: str
) -> None:
    assert (await acme.ask("odd.ask", {"text": how})).code == code


async def test_a_handler_may_handle_what_another_service_answers(acme: Program) -> None:
    assert (await acme.ask("odd.ask_carefully")).json["text"] == "caught: as asked"


async def test_state_is_the_services_own(acme: Program) -> None:
    await acme.client.publish("notes.remember", {"text": "secret"})
    await eventually(lambda: _remembers(acme, ["secret"]))
    assert (await acme.ask("odd.look")).json["texts"] == ["nothing"]


@pytest.mark.parametrize("name", ["", "*", ">", "a.>", "..", "../x", "a b", "x" * 201, "a\n", "ä"])
async def test_state_cannot_be_named_out_of_its_place(acme: Program, name: str) -> None:
    assert (await acme.ask("odd.climb", {"text": name})).code


@pytest.mark.parametrize("name", ["x", "a.b.c", "A-1_=", "0"])
async def test_state_has_names_of_several_parts(acme: Program, name: str) -> None:
    assert (await acme.ask("odd.climb", {"text": name})).code == ""


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
    again = service.event("again", Note)

    @service.on(done)
    async def follow(ctx: Context, event: Note) -> None:
        ctx.emit(again, event)

    running = mesh.start(mesh.worker(service))
    await acme.ask("odd.finish", {"text": "x"})
    await eventually(lambda: _has(control, acme.id, "echoer.again"))
    (entry,) = await journal(control, acme.id, "echoer.again")
    assert entry.data == b'{"text":"x","count":0}'
    await running.stop()


async def _remembers(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts


async def _has(control: Bus, tenant: str, name: str) -> bool:
    return bool(await journal(control, tenant, name))
