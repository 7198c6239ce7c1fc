"""Where answers may go: into the asker's own inbox and nowhere else."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.msg import Msg

from tenantry.bus import Bus
from tests.isolation.attacker import Wire, wire
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually

NOTE = b'{"text": "x"}'

FOREIGN = [
    (19, "_INBOX.{other}.x"),
    (19, "_INBOX.{own}x.y"),
    (19, "_INBOX.{own}"),
    (19, "_INBOX.x"),
    (19, "_INBOX.{own}.>"),
    (19, "_INBOX.*.x"),
    (19, "_INBOX.{other}.{own}.x"),
    (19, "x._INBOX.{own}.x"),
    (19, "_inbox.{own}.x"),
    (19, "_MESH.x.y"),
    (19, "_R_.x.y"),
    (19, "tenant.{other}.notes.remember"),
    (19, "tenant.{own}.notes.noted"),
    (19, "edge.{other}.notes.echo"),
    (19, "request.{own}.notes.private"),
    (19, "request.{other}.notes.echo"),
    (19, "platform.gone.notes"),
    (19, "platform.tenants.delete"),
    (20, "$KV.state.{other}.notes.texts"),
    (20, "$KV.tenants.{other}"),
    (20, "$JS.API.STREAM.PURGE.JOURNAL"),
    (20, "$JS.API.STREAM.DELETE.KV_tenants"),
    (20, "$JS.API.CONSUMER.MSG.NEXT.DEAD.tenants-letters"),
    (20, "$JS.ACK.DEAD.tenants-letters.1.1.1.1.1"),
    (20, "$SRV.PING"),
    (20, "$SYS.REQ.CLAIMS.UPDATE"),
]
REPLIES = [reply for _, reply in FOREIGN]


async def listen(bus: Bus, *subjects: str) -> list[Msg]:
    """What comes on these subjects inside the mesh."""
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    for subject in subjects:
        await bus.subscribe(subject, hear)
    return heard


def places(replies: list[str]) -> list[str]:
    """The subjects themselves; no patterns, for they hear others' answers; the edge is closed."""
    kept = [reply for reply in replies if "*" not in reply and ">" not in reply]
    return [reply for reply in kept if not reply.startswith("edge.")]


@cannot(19, Layer.ROUTER)
@cannot(20, Layer.ROUTER)
async def test_nothing_is_sent_to_a_foreign_reply_subject(
    acme: Program, globex: Program, neighbour: Wire, hostile: Wire, control: Bus
) -> None:
    replies = [reply.format(own=globex.id, other=acme.id) for reply in REPLIES]
    heard = await listen(control, *places(replies))
    for reply in replies:
        for action in ("notes.echo", "notes.missing", "notes.bad", "notes.remember", "notes"):
            await hostile.publish(f"tenant.{globex.id}.{action}", NOTE, reply=reply)
    await globex.ask("notes.echo", {"text": "later"})
    await control.flush()
    await neighbour.say(b"")
    own = [each for each in heard if globex.id in each.subject or "_MESH.x" in each.subject]
    assert own == []
    assert [each for each in heard if each.data == NOTE] == []
    assert neighbour.heard == []


@cannot(19, Layer.ROUTER, without=Layer.RUNTIME)
@cannot(20, Layer.ROUTER, without=Layer.RUNTIME)
@pytest.mark.parametrize("action", ["remember", "echo"])
async def test_a_message_with_a_foreign_reply_subject_is_not_forwarded(
    acme: Program, globex: Program, hostile: Wire, control: Bus, action: str
) -> None:
    """For a command the journal itself would answer, wherever it is told to."""
    heard = await listen(control, f"*.{globex.id}.notes.{action}")
    subject = f"tenant.{globex.id}.notes.{action}"
    for reply in REPLIES:
        to = reply.format(own=globex.id, other=acme.id)
        await hostile.publish(subject, b'{"text": "foreign"}', reply=to)
    await hostile.publish(subject, b'{"text": "own"}', reply=f"_INBOX.{globex.id}.x")

    async def came() -> bool:
        return bool(heard)

    await eventually(came)
    assert [each.data for each in heard] == [b'{"text": "own"}']


@cannot(19, Layer.RUNTIME, without=Layer.ROUTER)
@cannot(20, Layer.RUNTIME, without=Layer.ROUTER)
async def test_a_worker_answers_a_tenant_nowhere_else_either(
    mesh: Mesh, acme: Program, globex: Program, neighbour: Wire, insider: Bus, control: Bus
) -> None:
    """Past the router, with a context that is as it should be."""
    replies = [reply.format(own=globex.id, other=acme.id) for reply in REPLIES]
    replies = [reply for reply in replies if not reply.startswith("_MESH.")]
    heard = await listen(control, *(p for p in places(replies) if not p.startswith("$S")))
    headers = {"Tenant-Context": mesh.minter().mint(globex.id, "business", "edge")}
    subject = f"request.{globex.id}.notes"
    for reply in replies:
        for action, fields in (("echo", headers), ("echo", {}), ("bad", headers)):
            await insider.publish(f"{subject}.{action}", NOTE, headers=fields, reply=reply)
    assert (
        await insider.call(f"{subject}.echo", NOTE, headers=headers)
    ).data == b'{"text":"x","count":0}'
    await control.flush()
    await neighbour.say(b"")
    assert [each.subject for each in heard if b"text" in each.data or each.headers] == []
    assert neighbour.heard == []


@can(19)
@can(20)
async def test_into_the_own_inbox_all_are_answered(
    mesh: Mesh, globex: Program, hostile: Wire, insider: Bus
) -> None:
    inbox = f"_INBOX.{globex.id}"
    headers = {"Tenant-Context": mesh.minter().mint(globex.id, "business", "edge")}
    await hostile.subscribe(f"{inbox}.>")
    await hostile.publish(f"tenant.{globex.id}.notes.echo", NOTE, reply=f"{inbox}.request")
    await hostile.publish(f"tenant.{globex.id}.notes.remember", NOTE, reply=f"{inbox}.command")
    await hostile.publish(f"tenant.{globex.id}.notes.nothing", NOTE, reply=f"{inbox}.refused")
    await insider.publish(
        f"request.{globex.id}.notes.echo", NOTE, headers=headers, reply=f"{inbox}.inside"
    )
    expected = {f"{inbox}.{name}" for name in ("request", "command", "refused", "inside")}

    async def all_came() -> bool:
        return {each.subject for each in hostile.heard} == expected

    await eventually(all_came)


@cannot(5, Layer.ROUTER)
@pytest.mark.parametrize("ending", ["", ".", ".*", ".>", ".a..b", ".a.", "..a"])
async def test_a_reply_subject_that_is_none_gets_no_answer(
    hostile: Wire, globex: Program, ending: str
) -> None:
    inbox, subject = f"_INBOX.{globex.id}", f"tenant.{globex.id}.notes.echo"
    await hostile.subscribe(f"{inbox}.>")
    await hostile.publish(subject, b"{}", reply=f"{inbox}{ending}")
    await hostile.publish(subject, NOTE, reply=f"{inbox}.later")

    async def came() -> bool:
        return bool(hostile.heard)

    await eventually(came)
    assert [each.subject for each in hostile.heard] == [f"{inbox}.later"]


@can(5)
@can(10)
async def test_a_reply_subject_may_be_long(hostile: Wire, globex: Program) -> None:
    inbox, subject = f"_INBOX.{globex.id}", f"tenant.{globex.id}.notes.echo"
    reply = f"{inbox}.{'x' * 200}.{'!#$%&()+,-/09:;<=?@AZ[]^_`az{|}~'}".ljust(500, "y")
    await hostile.subscribe(f"{inbox}.>")
    await hostile.publish(subject, NOTE, reply=reply)

    async def came() -> bool:
        return bool(hostile.heard)

    await eventually(came)
    assert [each.subject for each in hostile.heard] == [reply]


async def test_a_command_without_a_reply_subject_is_taken(acme: Program) -> None:
    await acme.plain.publish(f"tenant.{acme.id}.notes.remember", NOTE)
    await eventually(lambda: _remembers(acme, ["x"]))


# --- somebody else's answers -------------------------------------------------------------------


@cannot(17, Layer.SERVER)
@cannot(18, Layer.SERVER)
async def test_another_tenant_cannot_hear_the_answers(
    acme: Program, globex: Program, hostile: Wire
) -> None:
    for subject in (f"_INBOX.{acme.id}.>", "_INBOX.>", "_INBOX.*.>", ">", f"tenant.{acme.id}.>"):
        await hostile.subscribe(subject)
    await hostile.subscribe(f"_INBOX.{globex.id}.>")
    for _ in range(5):
        await acme.ask("notes.echo", {"text": "mine"})
        await acme.client.publish("notes.remember", {"text": "mine"})
    await hostile.say(b"")
    assert hostile.heard == []


@cannot(18, Layer.SERVER)
async def test_a_client_with_another_tenants_inbox_prefix_gets_no_answers(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    refused: asyncio.Queue[str] = asyncio.Queue()

    async def on_error(error: Exception) -> None:
        refused.put_nowait(str(error))

    plain = await mesh.plain(globex.creds, error_cb=on_error)
    plain._inbox_prefix = bytearray(f"_INBOX.{acme.id}".encode())
    with pytest.raises(TimeoutError):
        await plain.request(f"tenant.{globex.id}.notes.echo", NOTE, timeout=0.2)
    assert "permissions violation for subscription" in await refused.get()
    await plain.close()


@can(17)
@can(18)
async def test_with_its_own_prefix_it_gets_them(globex: Program) -> None:
    assert (await globex.ask("notes.echo", {"text": "x"})).code == ""


# --- late and second answers -------------------------------------------------------------------


@cannot(21, Layer.SERVER)
async def test_nobody_else_answers_a_tenants_request(
    acme: Program, hostile: Wire, neighbour: Wire
) -> None:
    """Even one who knows where the answer is expected."""
    for subject in (f"_INBOX.{acme.id}.x", f"_INBOX.{acme.id}.>", f"_INBOX.{acme.id}.*"):
        assert not await hostile.publish(subject, b"forged")
    await neighbour.publish(f"tenant.{acme.id}.notes.echo", NOTE, reply=f"_INBOX.{acme.id}.x")

    async def came() -> bool:
        return bool(neighbour.heard)

    await eventually(came)
    assert [each.data for each in neighbour.heard] == [b'{"text":"x","count":0}']


@cannot(21, Layer.RUNTIME, without=Layer.SERVER)
async def test_a_second_answer_is_nobodys(victim: Program, anyone: Wire) -> None:
    """Our client and nats-py's know an answer by where it comes to, and each once."""
    assert await anyone.subscribe("_INBOX.>")
    for number in range(10):
        texts = [f"{number}", f"{number}-plain"]
        answers = [
            (await victim.client.request("notes.echo", {"text": texts[0]}))["text"],
            (await victim.ask("notes.echo", {"text": texts[1]})).json["text"],
        ]
        assert answers == texts
        for place in {each.subject for each in anyone.heard}:
            await anyone.publish(place, b'{"text": "forged"}')


@cannot(21, Layer.RUNTIME)
async def test_a_late_answer_is_not_the_next_requests(mesh: Mesh, acme: Program) -> None:
    """`bad` answers its deadline late; the asker has long gone on."""
    for number in range(3):
        with pytest.raises(TimeoutError):
            await acme.ask("notes.bad", {"text": "hang"}, timeout=0.05)
        assert (await acme.ask("notes.echo", {"text": f"{number}"})).json["text"] == f"{number}"


@cannot(21, Layer.SERVER)
async def test_a_late_answer_is_no_other_tenants(acme: Program, hostile: Wire, mesh: Mesh) -> None:
    async with wire(mesh.url, acme.creds.read_text()) as short:
        await short.publish(
            f"tenant.{acme.id}.notes.bad", b'{"text":"hang"}', reply=f"_INBOX.{acme.id}.x"
        )
    async with wire(mesh.url, acme.creds.read_text()) as later:
        await later.subscribe(f"_INBOX.{acme.id}.>")

        async def came() -> bool:
            return bool(later.heard)

        await eventually(came)
    assert hostile.heard == []


@can(21)
async def test_each_of_many_requests_gets_its_own_answer(acme: Program) -> None:
    texts = [str(number) for number in range(100)]
    answers = await asyncio.gather(*(acme.ask("notes.echo", {"text": text}) for text in texts))
    assert [answer.json["text"] for answer in answers] == texts


async def _remembers(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts
