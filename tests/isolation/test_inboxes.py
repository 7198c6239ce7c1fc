"""Where answers may go: into the asker's own inbox and nowhere else."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.msg import Msg

from tenantry.bus import Bus
from tests.mesh import Mesh, Program, eventually


async def listen(bus: Bus, subject: str) -> asyncio.Queue[Msg]:
    heard: asyncio.Queue[Msg] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        heard.put_nowait(message)

    await bus.subscribe(subject, hear)
    return heard


FOREIGN = [
    "_INBOX.{other}.x",
    "_INBOX.{own}x.y",
    "_INBOX.{own}",
    "_INBOX.x",
    "_MESH.x.y",
    "tenant.{other}.notes.remember",
    "tenant.{own}.notes.noted",
    "request.{own}.notes.private",
    "platform.gone.notes",
    "$KV.state.{other}.notes.texts",
    "$JS.API.STREAM.PURGE.JOURNAL",
    "$SRV.PING",
]


@pytest.mark.parametrize("reply", FOREIGN)
async def test_nothing_is_sent_to_a_foreign_reply_subject(
    acme: Program, globex: Program, control: Bus, reply: str
) -> None:
    reply = reply.format(own=acme.id, other=globex.id)
    heard = await listen(control, reply)
    for action in ("notes.echo", "notes.missing", "notes.bad"):
        await acme.plain.publish(f"tenant.{acme.id}.{action}", b'{"text": "x"}', reply=reply)
    await acme.ask("notes.echo", {"text": "later"})
    await control.flush()
    assert heard.empty()


@pytest.mark.parametrize("action", ["remember", "echo"])
async def test_a_message_with_a_foreign_reply_subject_is_not_forwarded(
    acme: Program, globex: Program, control: Bus, action: str
) -> None:
    heard = await listen(control, f"*.{acme.id}.notes.{action}")
    subject, inbox = f"tenant.{acme.id}.notes.{action}", f"_INBOX.{globex.id}.x"
    await acme.plain.publish(subject, b'{"text": "foreign"}', reply=inbox)
    await acme.plain.publish(subject, b'{"text": "own"}', reply=f"_INBOX.{acme.id}.x")
    assert (await heard.get()).data == b'{"text": "own"}'


async def test_a_command_without_a_reply_subject_is_taken(acme: Program) -> None:
    await acme.plain.publish(f"tenant.{acme.id}.notes.remember", b'{"text": "x"}')
    await eventually(lambda: _remembers(acme, ["x"]))


async def test_another_tenant_cannot_hear_the_answers(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    refused: asyncio.Queue[str] = asyncio.Queue()

    async def on_error(error: Exception) -> None:
        refused.put_nowait(str(error))

    spy = await mesh.plain(globex.creds, error_cb=on_error)
    for subject in (f"_INBOX.{acme.id}.>", "_INBOX.>", "_INBOX.*.>", ">", f"tenant.{acme.id}.>"):
        await spy.subscribe(subject)
        assert "permissions violation" in await asyncio.wait_for(refused.get(), 10)
    await spy.close()


async def _remembers(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts
