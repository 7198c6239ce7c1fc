"""What nats-server lets a tenant's program publish and subscribe, and what is not there at all."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from tenantry.bus import Bus, Message
from tests.isolation.attacker import Wire, wire
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually

NOTE = b'{"text": "x"}'
MESH_KEY = "UBIZF6LJ5WEZ4PZQZGDPPWEAPRL5MFNVZLTLGTGFYKYVPBKJGZ6DVJ5M"

OWN = ["tenant.{own}.orders.place", "tenant.{own}.orders", "tenant.{own}.orders.place.more"]
OWN_INBOXES = ["_INBOX.{own}.x", "_INBOX.{own}.>", "_INBOX.{own}.*.*", "_INBOX.{own}.*"]

PUBLISHES_NOT = [
    *["tenant.{other}.orders.place", "tenant.{own}x.orders.place", "tenant.{other}.tenants.x"],
    *["request.{own}.orders.place", "edge.{own}.orders.place", "journal.0.{own}.orders.placed"],
    *["dead.{own}.orders.1", "schedule.{own}.orders.x", "timer.{own}.orders.x", "due.{own}.a.b"],
    *["platform.tenants.create", "platform.tenants.issue_context", "platform.router.renew_context"],
    *["platform.alive.orders", "platform.gone.notes", "platform.disconnects", "stats.tenants"],
    *["_INBOX.{other}.x", "_INBOX.{own}.x", f"_MESH.{MESH_KEY}.x", "_R_.x"],
    *["$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.STREAM.PURGE.JOURNAL", "$JS.FC.JOURNAL.x.y"],
    *[
        "$JS.ACK.DEAD.tenants-letters.1.1.1.1.1",
        "$KV.tenants.{own}",
        "$KV.state.{other}.notes.texts",
    ],
    *["$SRV.PING", "$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING", "$G.x"],
]
SUBSCRIBES_NOT = [
    (12, "tenant.>"),
    (12, "tenant.{own}.>"),
    (12, "tenant.{other}.>"),
    (12, "tenant.*.>"),
    (13, "tenant.*.orders.place"),
    (13, "tenant.{own}.orders.place"),
    (13, "tenant.*.*.*"),
    (13, "edge.*.orders.place"),
    (13, "request.*.orders.place"),
    (14, ">"),
    (14, "*.>"),
    (14, "*.*.>"),
    (14, "*.{own}.>"),
    (14, "*.{other}.*"),
    (14, "*.*.*.*"),
    (14, "_INBOX.*.x"),
    (14, "*.{own}.x"),
    (14, "_INBOX.*"),
    (14, "_INBOX.{own}"),
    (14, "$SYS.>"),
    (14, "$JS.>"),
    (14, "$JS.EVENT.ADVISORY.>"),
    (14, "$KV.>"),
    (14, "$SRV.>"),
    (14, "journal.>"),
    (14, "dead.>"),
    (14, "platform.>"),
    (14, "_R_.>"),
    (14, "$SYS.ACCOUNT.*.CONNECT"),
    (16, "edge.>"),
    (16, "edge.{own}.>"),
    (17, "_INBOX.>"),
    (17, "_INBOX.*.>"),
    (17, "_MESH.>"),
    (18, "_INBOX.{other}.>"),
    (18, "_INBOX.{other}.*"),
    (18, "_INBOX.{other}"),
    (18, "_INBOX.{own}2.>"),
    (18, "_INBOX.{upper}.>"),
    (18, "_inbox.{own}.>"),
]


def every_case(layer: Layer, *further: int):  # type: ignore[no-untyped-def]
    """The same test is a try of each case above."""

    def mark(test):  # type: ignore[no-untyped-def]
        for case in sorted({case for case, _ in SUBSCRIBES_NOT} | set(further)):
            test = cannot(case, layer)(test)
        return test

    return mark


@pytest.fixture
def names(acme: Program, globex: Program) -> dict[str, str]:
    return {"own": globex.id, "other": acme.id, "upper": globex.id.upper()}


async def denied(told: Awaitable[bool], opened: Wire) -> bool:
    """Whether the server refuses for want of permission, and not for anything else."""
    return not await told and "Permissions Violation" in opened.errors[-1]


@can(12)
async def test_a_tenant_publishes_under_its_own_id(hostile: Wire, names: dict[str, str]) -> None:
    for subject in OWN:
        assert await hostile.publish(subject.format(**names)), subject


@cannot(6, Layer.SERVER)
@cannot(12, Layer.SERVER)
@cannot(21, Layer.SERVER)
async def test_a_tenant_can_not_publish_elsewhere(hostile: Wire, names: dict[str, str]) -> None:
    for subject in PUBLISHES_NOT:
        assert await denied(hostile.publish(subject.format(**names)), hostile), subject


@pytest.mark.parametrize("queue", ["", "router", "notes"])
@can(13)
@can(14)
@can(15)
@can(16)
@can(17)
@can(18)
async def test_a_tenant_subscribes_its_own_inbox(
    hostile: Wire, names: dict[str, str], queue: str
) -> None:
    for subject in OWN_INBOXES:
        assert await hostile.subscribe(subject.format(**names), queue), subject


@every_case(Layer.SERVER)
async def test_a_tenant_can_not_subscribe_elsewhere(hostile: Wire, names: dict[str, str]) -> None:
    for _, subject in SUBSCRIBES_NOT:
        assert await denied(hostile.subscribe(subject.format(**names)), hostile), subject


@pytest.mark.parametrize("queue", ["router", "notes", "tenants", "*", ">"])
@every_case(Layer.SERVER, 15)
async def test_a_queue_is_no_way_round(hostile: Wire, names: dict[str, str], queue: str) -> None:
    for _, subject in SUBSCRIBES_NOT:
        assert await denied(hostile.subscribe(subject.format(**names), queue), hostile), subject


async def test_two_programs_of_one_tenant_have_the_same_rights(mesh: Mesh, acme: Program) -> None:
    for _ in range(2):
        async with wire(mesh.url, acme.creds.read_text()) as program:
            assert await program.publish(f"tenant.{acme.id}.orders.place")
            assert await program.subscribe(f"_INBOX.{acme.id}.>")


# --- the server's permissions switched off -----------------------------------------------------

OF_MESH = [
    *["edge.>", "request.>", "journal.>", "dead.>", "schedule.>", "timer.>", "due.>", "platform.>"],
    *["stats.>", "_MESH.>", "$JS.>", "$KV.>", "$SRV.>", "$SYS.>"],
]


@cannot(13, Layer.ACCOUNT, without=Layer.SERVER)
@cannot(14, Layer.ACCOUNT, without=Layer.SERVER)
@cannot(15, Layer.ACCOUNT, without=Layer.SERVER)
@cannot(16, Layer.ACCOUNT, without=Layer.SERVER)
@cannot(17, Layer.ACCOUNT, without=Layer.SERVER)
@cannot(24, Layer.ACCOUNT, without=Layer.SERVER)
@pytest.mark.parametrize("queue", ["", "router"])
async def test_what_is_of_the_mesh_is_not_in_the_tenants_account(
    victim: Program, anyone: Wire, queue: str
) -> None:
    """A service asks another, keeps state, emits; routers and lanes do what they do."""
    for subject in OF_MESH:
        assert await anyone.subscribe(subject, queue)
    for _ in range(10):
        await victim.ask("notes.relay", {"text": "x"})
        await victim.client.publish("notes.remember", {"text": "x"})
        await victim.ask("notes.emit", {"text": "x", "count": 1})
    await eventually(lambda: _follows(victim, 10))
    await anyone.say(b"")
    assert anyone.heard == []


@cannot(12, Layer.ACCOUNT, without=Layer.SERVER)
async def test_events_and_admitted_commands_are_not_in_the_tenants_account(
    victim: Program, anyone: Wire
) -> None:
    """Only what programs send themselves is: to hear that, the server's permissions stop alone."""
    assert await anyone.subscribe("tenant.>")
    await victim.client.publish("notes.remember", {"text": "x"})
    await victim.ask("notes.emit", {"text": "x", "count": 3})
    await eventually(lambda: _follows(victim, 3))
    await anyone.say(b"")
    heard = {(each.subject, "Tenant-Context" in each.headers) for each in anyone.heard}
    actions = ("remember", "emit")
    sent = {(f"tenant.{victim.id}.notes.{action}", False) for action in actions}
    assert {each for each in heard if "followers" not in each[0]} == sent


TO_MESH = [
    *["request.{id}.notes.private", "$JS.API.INFO", "$JS.API.STREAM.LIST", "$SRV.PING", "edge.a.b"],
    *["$JS.API.STREAM.PURGE.JOURNAL", "$JS.API.STREAM.DELETE.KV_tenants", "$SYS.REQ.USER.INFO"],
    *["$JS.API.DIRECT.GET.JOURNAL", "$KV.tenants.{id}", "platform.tenants.list", "stats.tenants"],
    *["platform.tenants.issue_context", "platform.gone.notes", "$SYS.REQ.CLAIMS.UPDATE"],
]


@cannot(34, Layer.ACCOUNT, without=Layer.SERVER)
@cannot(37, Layer.ACCOUNT, without=Layer.SERVER)
@cannot(39, Layer.ACCOUNT, without=Layer.SERVER)
async def test_nobody_of_the_mesh_hears_or_answers_the_tenants_account(
    open_mesh: Mesh, victim: Program, anyone: Wire
) -> None:
    assert await anyone.subscribe("_INBOX.>")
    async with await open_mesh.insider("control") as control:
        heard = []

        async def hear(message: Message) -> None:
            if b"from outside" in message.data:
                heard.append(message.subject)

        for root in {subject.partition(".")[0] for subject in TO_MESH} - {"edge"}:
            await control.subscribe(f"{root}.>", hear)
        for subject in TO_MESH:
            to = subject.format(id=victim.id)
            assert await anyone.publish(to, b'{"from outside": 1}', reply="_INBOX.anyone.x")
        assert (await victim.ask("notes.echo", {"text": "x"})).code == ""
        await control.flush()
        # JetStream tells that this account has none, the server what is known of oneself.
        assert b"JOURNAL" in (await control.call("$JS.API.STREAM.NAMES")).data
    told = b"".join(each.data for each in anyone.heard if each.subject == "_INBOX.anyone.x")
    assert heard == []
    assert b"JOURNAL" not in told
    assert open_mesh.home.mesh_public_key.encode() not in told


@can(34)
@can(37)
@can(39)
async def test_inside_the_mesh_they_are_answered(control: Bus) -> None:
    assert b"JOURNAL" in (await control.call("$JS.API.STREAM.NAMES")).data
    assert b"tenants" in (await control.call("platform.tenants.list", b"{}")).data


# --- answers -----------------------------------------------------------------------------------


@cannot(18, Layer.SERVER)
async def test_an_answer_reaches_the_inbox_of_its_tenant_and_no_other(
    insider: Bus, acme: Program, neighbour: Wire, hostile: Wire, globex: Program
) -> None:
    assert await hostile.subscribe(f"_INBOX.{globex.id}.>")
    await insider.publish(f"_INBOX.{acme.id}.x", b"reply")
    await insider.publish(f"_INBOX.{globex.id}.x", b"other")
    await eventually(lambda: _has(neighbour, b"reply"))
    await eventually(lambda: _has(hostile, b"other"))
    assert [each.data for each in neighbour.heard] == [b"reply"]
    assert [each.data for each in hostile.heard] == [b"other"]


async def _has(opened: Wire, data: bytes) -> bool:
    return data in {each.data for each in opened.heard}


async def _follows(program: Program, count: int) -> bool:
    return len(await program.texts("followers")) == count
