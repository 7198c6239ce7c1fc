"""Handlers send to what services have declared, and to nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from msgspec import Struct

from tenantry import Context, Service
from tenantry.bus import Bus
from tenantry.errors import DeclarationError
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import Memory


class Send(Struct, frozen=True):
    """What to send, and when."""

    to: str
    after: float | None = None


class Ping(Struct, frozen=True):
    """A fact, and the body of all that is sent."""

    text: str = "x"


pinger = Service("pinger")
pinged = pinger.event("pinged", Ping)


@pinger.request("ping", public=True)
async def ping(ctx: Context, body: Ping) -> None:
    """Emit the event."""
    ctx.emit(pinged, body)


hearer = Service("hearer")
heard: list[tuple[str, str]] = []


@hearer.on("pinger.pinged")
async def hear(ctx: Context, event: Ping) -> None:
    """Remember what was told to whom."""
    heard.append((ctx.tenant, event.text))


sender = Service("sender")
sender.event("sent", Ping)


@sender.request("send", public=True)
async def send(ctx: Context, ask: Send) -> None:
    """Send what is asked for."""
    if ask.after is None:
        ctx.send(ask.to, Ping())
    else:
        ctx.send(ask.to, Ping(), after=ask.after)


@sender.request("ask", public=True)
async def ask(ctx: Context, body: Send) -> None:
    """Ask for what is asked for."""
    await ctx.request(body.to, Ping(), type=type(None))


@sender.request("swallow", public=True)
async def swallow(ctx: Context, ask: Send) -> str:
    """Send, and tell what was wrong with it."""
    try:
        ctx.send(ask.to, Ping())
    except DeclarationError as error:
        return str(error)
    return ""


@sender.command("pass_on", public=True)
async def pass_on(ctx: Context, ask: Send) -> None:
    """Send what is asked for, as a stored message."""
    ctx.send(ask.to, Ping())


@pytest.fixture(scope="module", autouse=True)
def workers(mesh: Mesh) -> Iterator[None]:
    running = mesh.start(mesh.worker(pinger, hearer, sender))
    yield
    mesh.end(running)


@pytest.fixture(autouse=True)
async def served(mesh: Mesh, acme: Program) -> None:
    for action in ("sender.send", "pinger.ping"):
        await mesh.ready(acme, action)


UNDECLARED = [
    "notes.remembr",  # another's, with a mistake
    "sender.pass_onn",  # its own
    "nobody.nothing",
    "tenants.tenant_deleted",
    "notes.echo",  # a request
    "sender.sent",  # its own event
    "pinger.pinged",
]


@pytest.mark.parametrize("after", [None, 0.0])
@pytest.mark.parametrize("to", UNDECLARED)
async def test_what_nobody_declares_as_a_command_is_not_sent(
    acme: Program, control: Bus, to: str, after: float | None
) -> None:
    answer = await acme.ask("sender.send", {"to": to, "after": after})
    assert answer.code == "handler_failed"
    assert await journal(control, acme.id, to) == []


@pytest.mark.parametrize("to", ["notes.remember", "nobody.nothing", "pinger.pinged", "notes.eco"])
async def test_what_nobody_declares_as_a_request_is_not_asked_for(acme: Program, to: str) -> None:
    assert (await acme.ask("sender.ask", {"to": to})).code == "handler_failed"


@pytest.mark.parametrize("after", [None, 0.0])
async def test_a_declared_command_of_another_service_is_sent(
    acme: Program, after: float | None
) -> None:
    assert not (await acme.ask("sender.send", {"to": "notes.remember", "after": after})).code
    await eventually(lambda: _texts(acme, ["x"]))


async def test_only_its_own_service_emits_an_event(acme: Program) -> None:
    await acme.ask("sender.send", {"to": "pinger.pinged"})
    await acme.ask("pinger.ping", {"text": "real"})
    await eventually(lambda: _true((acme.id, "real") in heard))
    assert (acme.id, "x") not in heard


async def test_the_right_name_is_proposed(acme: Program) -> None:
    said = (await acme.ask("sender.swallow", {"to": "notes.remembr"})).json
    assert "did you mean notes.remember?" in said


async def test_an_instance_tells_what_its_handlers_named_in_vain(
    acme: Program, control: Bus
) -> None:
    for _ in range(2):
        await acme.ask("sender.swallow", {"to": "sender.mistaken"})
    (answer,) = await control.gather("$SRV.STATS.sender", wait=0.5)
    told = json.loads(json.loads(answer.data)["metadata"]["unknown"])
    assert told["sender.mistaken"] == 2


async def test_a_stored_message_waits_for_the_service_that_it_sends_to(
    mesh: Mesh, acme: Program
) -> None:
    await acme.client.publish("sender.pass_on", {"to": "tardy.keep"})
    running = mesh.start(mesh.worker(Memory("tardy").service))
    await mesh.ready(acme, "tardy.texts")
    await eventually(lambda: _texts(acme, ["x"], "tardy"))
    await running.stop()


async def _texts(program: Program, texts: list[str], service: str = "notes") -> bool:
    return await program.texts(service) == texts


async def _true(value: bool) -> bool:
    return value
