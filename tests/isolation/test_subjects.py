"""Subjects by which one tenant's program would reach another tenant, or no tenant at all."""

from __future__ import annotations

import pytest

from tenantry.bus import Bus
from tests.isolation.attacker import Wire, wire
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import PATIENCE, Answer, Mesh, Program, eventually

NOTE = b'{"text": "x"}'


async def answers(opened: Wire, tenant: str, subject: str | bytes) -> list[str]:
    """The codes of what comes back for a raw request; "" for a result."""
    before = len(opened.heard)
    await opened.publish(subject, NOTE, reply=f"_INBOX.{tenant}.x")

    async def came() -> bool:
        return len(opened.heard) > before

    await eventually(came)
    return [_code(heard.headers) for heard in opened.heard[before:]]


def _code(headers: dict[str, str]) -> str:
    return headers.get("Nats-Service-Error", "").partition(":")[0]


@pytest.fixture
async def own(mesh: Mesh, acme: Program) -> Wire:  # type: ignore[misc]
    """A raw connection of acme that hears its own inbox."""
    async with wire(mesh.url, acme.creds.read_text()) as opened:
        assert await opened.subscribe(f"_INBOX.{acme.id}.>")
        yield opened  # type: ignore[misc]


# --- what does not name four things ------------------------------------------------------------


@cannot(1, Layer.ROUTER)
@cannot(10, Layer.ROUTER)
@pytest.mark.parametrize(
    "rest", ["notes", "notes.echo.more", "notes.echo.more.yet", ">", "*", "a." * 400 + "b"]
)
async def test_a_wrong_number_of_tokens_is_told(own: Wire, acme: Program, rest: str) -> None:
    assert await answers(own, acme.id, f"tenant.{acme.id}.{rest}") == ["bad_subject"]


NAMES_NOTHING = [
    *[b"*.echo", b"notes.*", b"notes.>", b"*.*", b"Notes.echo", "notes.\u00e9cho".encode()],
    *[b"$JS.API", b"_INBOX.x", b"$SYS.x", b"notes.ECHO", "not\u0435s.echo".encode()],
    *[b"notes.echo\0", b"no\0tes.echo", b"notes.\xff\xfe", b"\xc0\xae.echo", b"notes.ec\x0bho"],
    *[b"notes.echo\x7f", "notes.echo\u200b".encode(), "notes\u3002.echo".encode()],
    *[b"notes." + b"e" * 2000, b"$KV.tenants", b"%2e.echo", b"notes.echo%0d%0a"],
]


@cannot(2, Layer.ROUTER)
@cannot(3, Layer.ROUTER)
@cannot(4, Layer.ROUTER)
@cannot(6, Layer.ROUTER)
@cannot(7, Layer.ROUTER)
@cannot(8, Layer.ROUTER)
@cannot(10, Layer.ROUTER)
async def test_a_token_that_names_nothing_is_an_unknown_action(own: Wire, acme: Program) -> None:
    for rest in NAMES_NOTHING:
        to = f"tenant.{acme.id}.".encode() + rest
        assert await answers(own, acme.id, to) == ["unknown_action"], rest


@can(1)
@can(2)
@can(3)
@can(4)
@can(5)
@can(6)
@can(7)
@can(8)
@can(10)
@can(50)
async def test_the_right_subject_is_answered(own: Wire, acme: Program) -> None:
    assert await answers(own, acme.id, f"tenant.{acme.id}.notes.echo") == [""]


# --- what is not below the tenant's own id -----------------------------------------------------

ELSEWHERE = [
    (1, "tenant.{other}.{own}.notes.echo"),
    (1, "tenant.{own}{other}.notes.echo"),
    (2, "tenant.*.notes.echo"),
    (3, "tenant.>"),
    (3, "tenant.>.notes.echo"),
    (4, "tenant.{other}\0.notes.echo"),
    (4, "tenant.{own}\0.notes.echo"),
    (5, "tenant"),
    (5, "tenant."),
    (5, "tenant.{own}"),
    (5, "tenant.{own}."),
    (5, "tenant.{own}..echo"),
    (5, "tenant.{own}.notes."),
    (5, "tenant..notes.echo"),
    (5, ".{own}.notes.echo"),
    (6, "tenant.$SYS.notes.echo"),
    (6, "$SYS.REQ.CLAIMS.UPDATE"),
    (6, "$JS.API.INFO"),
    (6, "_INBOX.{own}.x"),
    (7, "tenant.{own}\u200b.notes.echo"),
    (7, "tenant.\u0430cme.notes.echo"),
    (8, "TENANT.{own}.notes.echo"),
    (8, "tenant.{upper}.notes.echo"),
    (8, "Tenant.{own}.notes.echo"),
    (9, "tenant.{own}2.notes.echo"),
    (9, "tenant.{own}-2.notes.echo"),
    (9, "tenant.{short}.notes.echo"),
    (9, "tenants.{own}.notes.echo"),
    (9, "xtenant.{own}.notes.echo"),
    (10, "tenant.{long}.notes.echo"),
    (12, "edge.{own}.notes.echo"),
    (12, "request.{own}.notes.echo"),
    (12, "journal.0.{own}.notes.echo"),
    (12, "notes.echo"),
]


def every_case(layer: Layer):  # type: ignore[no-untyped-def]
    """The same test is a try of each case above."""

    def mark(test):  # type: ignore[no-untyped-def]
        for case in sorted({case for case, _ in ELSEWHERE}):
            test = cannot(case, layer)(test)
        return test

    return mark


@every_case(Layer.SERVER)
async def test_what_is_not_below_the_own_tenant_is_refused_by_the_server(
    own: Wire, acme: Program, globex: Program
) -> None:
    names = {"own": acme.id, "other": globex.id, "upper": acme.id.upper(), "short": acme.id[:-1]}
    for _, subject in ELSEWHERE:
        to = subject.format(long="a" * 2000, **names)
        assert not await own.publish(to, NOTE, reply=f"_INBOX.{acme.id}.x"), to
        assert "Permissions Violation" in own.errors[-1]


@cannot(10, Layer.SERVER)
async def test_a_subject_longer_than_the_server_reads_ends_the_own_connection_only(
    own: Wire, acme: Program, globex: Program
) -> None:
    assert not await own.publish(f"tenant.{acme.id}.{'a' * 5000}.echo", NOTE)
    assert own.closed.is_set()
    assert (await globex.ask("notes.echo", {"text": "x"})).code == ""


@cannot(4, Layer.SERVER)
@pytest.mark.parametrize("blank", [b" ", b"\t", b"\r\n", b"\n"], ids=ascii)
async def test_a_blank_ends_the_subject_and_what_follows_is_on_its_own(
    own: Wire, acme: Program, globex: Program, control: Bus, blank: bytes
) -> None:
    """What looks like one subject with another tenant in it is never read so."""
    heard = []

    async def hear(message: object) -> None:
        heard.append(message)

    for subject in (f"*.{globex.id}.notes.echo", f"*.*.{globex.id}.>"):
        await control.subscribe(subject, hear)
    mine, theirs = (f"tenant.{each.id}.notes.echo".encode() for each in (acme, globex))
    await own.say(b"PUB %s%s%s 13\r\n%s\r\n" % (mine, blank, theirs, NOTE))
    await own.say(b"PUB %s%sPUB %s 13\r\n%s\r\n" % (mine, blank, theirs, NOTE))
    await globex.ask("notes.texts")
    assert heard == []


@cannot(50, Layer.RUNTIME)
@pytest.mark.parametrize("blank", [b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xa0"], ids=ascii)
async def test_no_part_of_a_subject_is_taken_for_a_subscription_of_the_router(
    own: Wire, acme: Program, globex: Program, blank: bytes
) -> None:
    """nats-server takes these for letters; whoever does not would hand the message to another
    subscription of the same connection: as an answer, or as a record of a KV bucket."""
    to, reply = f"tenant.{acme.id}.notes.echo".encode(), f"_INBOX.{acme.id}.x"
    for sid in range(1, 30):
        await own.publish(to + blank + b"%d" % sid, NOTE, reply=reply)

    async def told() -> bool:
        return len(own.heard) == 29

    await eventually(told)
    assert {_code(heard.headers) for heard in own.heard} == {"unknown_action"}
    assert (await globex.ask("notes.echo", {"text": "x"})).code == ""


# --- ids that begin alike ----------------------------------------------------------------------


@cannot(9, Layer.SERVER)
async def test_a_tenant_is_nothing_to_one_whose_id_begins_with_its_own(mesh: Mesh) -> None:
    async with mesh.program("pair") as short, mesh.program("pair-2") as long:
        for one, other in ((short, long), (long, short)):
            async with wire(mesh.url, one.creds.read_text()) as opened:
                assert not await opened.publish(f"tenant.{other.id}.notes.echo", NOTE)
                assert not await opened.subscribe(f"_INBOX.{other.id}.>")
                assert not await opened.subscribe(f"_INBOX.{other.id}")


@cannot(9, Layer.ROUTER, without=Layer.SERVER)
async def test_a_reply_subject_that_begins_alike_gets_no_answer(
    victim: Program, anyone: Wire
) -> None:
    own = f"_INBOX.{victim.id}.x"
    assert await anyone.subscribe(">")
    for begins in (f"{victim.id}-2", f"{victim.id}2", victim.id[:-1], f"{victim.id}."):
        await anyone.publish(f"tenant.{victim.id}.notes.echo", NOTE, reply=f"_INBOX.{begins}.x")
    await anyone.publish(f"tenant.{victim.id}.notes.echo", NOTE, reply=own)
    await eventually(lambda: _heard(anyone, own))
    assert {heard.subject for heard in anyone.heard if heard.subject[:6] == "_INBOX"} == {own}


@cannot(9, Layer.STORE)
async def test_tenants_whose_ids_begin_alike_remember_apart(mesh: Mesh) -> None:
    async with mesh.program("state") as short, mesh.program("state-s") as long:
        await short.client.publish("notes.remember", {"text": "short"})
        await long.client.publish("notes.remember", {"text": "long"})
        await eventually(lambda: _remembers(short, ["short"]))
        await eventually(lambda: _remembers(long, ["long"]))


@can(9)
async def test_two_tenants_whose_ids_begin_alike_are_both_served(mesh: Mesh) -> None:
    async with mesh.program("twin") as short, mesh.program("twin-a") as long:
        for program in (short, long):
            subject = f"tenant.{program.id}.notes.seen"
            answer = Answer(await program.plain.request(subject, b"{}", timeout=PATIENCE))
            assert answer.json["tenant"] == program.id


async def _heard(opened: Wire, subject: str) -> bool:
    return subject in {heard.subject for heard in opened.heard}


async def _remembers(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts
