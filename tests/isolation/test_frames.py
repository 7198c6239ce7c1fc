"""Frames that no client would write: nobody else hears of them, and the mesh goes on."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantry.bus import Bus, Message
from tests.isolation.attacker import Wire, wire
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually

ALIVE = {"text": "alive"}


async def serves(program: Program) -> bool:
    return (await program.ask("notes.echo", ALIVE)).code == ""


ODD = [
    b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    b"NATS/1.0",
    b"NATS/1.0\r\n",
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
    b"NATS/1.0\r\n: x\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n(a): x\r\n\r\n",
    b"NATS/1.0\r\nTenant-Context: \xff.\xff.\xff\r\n\r\n",
    b"NATS/1.0\r\nTenant-Deadline: 9\r\nTenant-Deadline: x\r\n\r\n",
    b"\0" * 100,
]


@cannot(50, Layer.ROUTER)
async def test_an_odd_header_block_harms_nobody(
    hostile: Wire, globex: Program, acme: Program
) -> None:
    for header in ODD:
        for action in ("echo", "remember"):
            await hostile.publish(f"tenant.{globex.id}.notes.{action}", block=header)
        assert await serves(acme), header


@cannot(50, Layer.RUNTIME, without=Layer.ROUTER)
async def test_nor_does_it_past_the_router(mesh: Mesh, acme: Program) -> None:
    async with wire(mesh.url, mesh.home.service_creds(["notes"]).read_text()) as inside:
        for header in ODD:
            for to in (
                "request.{}.notes.echo",
                "tenant.{}.notes.remember",
                "tenant.{}.notes.noted",
            ):
                assert await inside.publish(to.format(acme.id), block=header)
            assert await serves(acme), header
    await acme.client.publish("notes.remember", {"text": "later"})

    async def taken() -> bool:
        return await acme.texts() == ["later"]

    await eventually(taken)


@cannot(10, Layer.ROUTER)
async def test_a_header_block_too_large_to_pass_on_is_refused(
    acme: Program, globex: Program
) -> None:
    answer = await acme.ask("notes.echo", {"text": "hi"}, headers={"X": "x" * 1_000_000})
    assert answer.code == "too_large"
    assert await serves(globex)


@can(10)
async def test_headers_of_a_usual_size_pass(acme: Program) -> None:
    answer = await acme.ask("notes.echo", {"text": "hi"}, headers={"X": "x" * 4_000})
    assert answer.code == ""


# --- anything ----------------------------------------------------------------------------------

PIECES = [
    *["{own}", "{other}", "tenant", "notes", "echo", "remember", "texts", "$JS", "API", "_INBOX"],
    *["*", ">", "", ".", "..", "$KV", "request", "edge", "platform", "gone", "\x0b7", "\x0c1"],
    *["\0", "\t", " ", "\r", "\n", "\u200b", "\u0430", "\xff", "A" * 70, "%", "@", "\\", "'"],
]
HEADERS = [
    *["Tenant-Context: x", "tenant-context: x", "Nats-Msg-Id: {other}.e.1", "Nats-TTL: 1s"],
    *["Nats-Trace-Dest: tenant.{other}.notes.remember", "Nats-Rollup: all", "Status: 503"],
    *["Nats-Trace-Dest: _INBOX.{other}.x", "traceparent: 00-1-2-3", "a: b\r\n\r\nPUB x 0", "(: x"],
    *["Nats-Request-Info: {{}}", "Tenant-Timeout: 0.001", "\0: \0", "Nats-Expected-Stream: X"],
]
subjects = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6)
places = st.one_of(
    st.tuples(st.just("tenant.{own}.notes."), st.sampled_from(["echo", "remember", "bad", "no"])),
    st.tuples(st.just("tenant.{own}."), subjects.map(".".join)),
    st.tuples(st.just("tenant.{own}."), subjects.map("".join)),
    st.tuples(st.sampled_from(["tenant.{other}.", "_INBOX.{other}.", ""]), subjects.map(".".join)),
).map("".join)
bodies = st.sampled_from(["", "{{}}", '{{"text":"f"}}', '{{"text":"hang"}}', "\r\nPUB x 0\r\n\r\n"])
texts = st.tuples(
    st.sampled_from(["PUB", "HPUB", "HPUB", "PUB", "SUB", "UNSUB", "MSG", "CONNECT"]),
    places,
    st.one_of(st.just(""), st.just("_INBOX.{own}.x"), places),
    st.lists(st.sampled_from(HEADERS), max_size=3),
    bodies,
    st.integers(-3, 3),
)
frames = st.lists(texts, min_size=10, max_size=40)


def frame(
    own: str, other: str, word: str, to: str, reply: str, said: list[str], body: str, off: int
) -> bytes:
    """One frame; with `off` its sizes are wrong, and what follows is read otherwise, too."""

    def raw(text: str) -> bytes:
        return text.format(own=own, other=other).encode().replace(b"\xc3\xbf", b"\xff")

    data, block = raw(body), b""
    if word == "HPUB":
        block = b"NATS/1.0\r\n%s\r\n\r\n" % b"\r\n".join(raw(each) for each in said)
    sizes = [len(block)] if block else []
    sizes.append(max(0, len(block) + len(data) + (off if off == 3 else 0)))
    parts = [word.encode(), raw(to), raw(reply), *(b"%d" % size for size in sizes)]
    return b" ".join(part for part in parts if part) + b"\r\n" + block + data + b"\r\n"


@pytest.fixture
async def overheard(acme: Program, control: Bus, insider: Bus) -> list[str]:
    """What is said in acme's name inside the mesh that acme itself has not said."""
    heard: list[str] = []

    async def hear(message: Message) -> None:
        if b"alive" not in message.data:
            heard.append(message.subject)

    await insider.subscribe("request.*.*.*", hear)
    for subject in ("tenant.{}.>", "*.{}.>", "$KV.*.{}", "$KV.*.{}.>", "$KV.*.*.{}"):
        await control.subscribe(subject.format(acme.id), hear)
    return heard


@cannot(50, Layer.SERVER, Layer.ROUTER)
@cannot(4, Layer.SERVER, Layer.ROUTER)
@cannot(12, Layer.SERVER, Layer.ROUTER)
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(sent=frames)
async def test_whatever_a_tenant_writes_no_other_hears_of_it(
    mesh: Mesh,
    acme: Program,
    globex: Program,
    neighbour: Wire,
    control: Bus,
    overheard: list[str],
    sent: list[tuple[str, str, str, list[str], str, int]],
) -> None:
    opened: Wire | None = None
    for each in sent:
        if opened is None or opened.closed.is_set():
            opened = await Wire.open(mesh.url)
            assert await opened.login(globex.creds.read_text())
        await opened.write(frame(globex.id, acme.id, *each))
    assert opened is not None
    await opened.say(b"")
    await opened.close()
    assert await serves(acme)
    await control.flush()
    await neighbour.say(b"")
    assert [each for each in neighbour.heard if b"alive" not in each.data] == []
    foreign = [subject for subject in overheard if acme.id in subject.split(".")]
    overheard.clear()
    assert foreign == []


@can(50)
@can(12)
async def test_what_is_written_well_is_answered(mesh: Mesh, acme: Program) -> None:
    async with wire(mesh.url, acme.creds.read_text()) as opened:
        assert await opened.subscribe(f"_INBOX.{acme.id}.>")
        to, reply = f"tenant.{acme.id}.notes.echo", f"_INBOX.{acme.id}.x"
        text = frame(acme.id, "", "HPUB", to, reply, ["X-Own: 1"], '{{"text":"x"}}', 0)
        assert await opened.say(text)
    assert await serves(acme)


# --- lines that grow on their way --------------------------------------------------------------


@cannot(50, Layer.ROUTER, Layer.RUNTIME)
@cannot(10, Layer.ROUTER, Layer.RUNTIME)
@pytest.mark.parametrize("action", ["echo", "remember", "nothing", "echo.more"])
@pytest.mark.parametrize("letter", [b"x", b"\xff", "\u0430".encode(), b"x."], ids=ascii)
async def test_a_long_reply_subject_does_not_end_the_routers_connection(
    mesh: Mesh, acme: Program, globex: Program, letter: bytes, action: str
) -> None:
    """The line that the router writes may be longer than the one that it got."""
    assert await lost_by_long_replies(mesh, acme, globex, letter, action) == []


@cannot(50, Layer.ROUTER, without=Layer.RUNTIME)
@cannot(10, Layer.ROUTER, without=Layer.RUNTIME)
@pytest.mark.parametrize("action", ["echo", "nothing"])
async def test_nor_where_the_bus_would_write_lines_of_any_length(
    mesh: Mesh, acme: Program, globex: Program, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr("tenantry.bus.protocol._MAX_LINE", 1 << 20)
    assert await lost_by_long_replies(mesh, acme, globex, b"x", action) == []


async def lost_by_long_replies(
    mesh: Mesh, acme: Program, globex: Program, letter: bytes, action: str
) -> list[str]:
    """What the server tells of routers' connections that it has ended."""
    lost: list[str] = []

    async def hear(message: Message) -> None:
        lost.append(message.data.decode())

    async with (
        await mesh.insider("control") as control,
        wire(mesh.url, globex.creds.read_text()) as opened,
    ):
        await control.subscribe("platform.disconnects", hear)
        subject, inbox = f"tenant.{globex.id}.notes.{action}", f"_INBOX.{globex.id}.".encode()
        for room in (2000, 3000, *range(4000, 4091, 9)):
            count = (room - len(subject) - len(inbox)) // len(letter)
            reply = inbox + letter * count + b"x"
            assert await opened.publish(subject, b'{"text": "x"}', reply=reply)
        assert await serves(acme)
        await control.flush()
    return [each for each in lost if "router/" in each]
