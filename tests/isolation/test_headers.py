"""Headers from outside: what the mesh gives meaning to is dropped, the rest passes."""

from __future__ import annotations

import base64
import json
import re
import secrets
from typing import Any

import pytest

from tests.isolation.cases import Layer, can, cannot
from tests.mesh import PATIENCE, Mesh, Program, eventually

TRACE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


async def seen(program: Program, **headers: str) -> dict[str, str]:
    """The headers that reach the handler."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return dict((await program.ask("notes.seen", headers=fields)).json["headers"])


MESH_SETS = {"Tenant-Context", "Tenant-Deadline", "Tenant-Timeout", "traceparent"}


def claims(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))


async def test_a_handler_sees_the_context_the_deadline_and_the_trace(acme: Program) -> None:
    assert (await seen(acme)).keys() == MESH_SETS


@can(25)
@can(26)
@can(29)
@pytest.mark.parametrize("name", ["X-Own", "Idempotency-Key", "content-type", "Natsy", "tenants"])
async def test_a_programs_own_headers_pass(acme: Program, name: str) -> None:
    answer = await acme.ask("notes.seen", headers={name: "value"})
    assert answer.json["headers"][name] == "value"


@cannot(25, Layer.ROUTER, Layer.CONTEXT)
@cannot(26, Layer.ROUTER, Layer.CONTEXT)
@cannot(27, Layer.ROUTER, Layer.CONTEXT)
@pytest.mark.parametrize("name", ["Tenant-Context", "tenant-context", "TENANT-CONTEXT"])
async def test_a_forged_context_is_replaced_by_the_routers(
    mesh: Mesh, acme: Program, globex: Program, name: str
) -> None:
    token = mesh.minter().mint(globex.id, "business", "edge")
    answer = await acme.ask("notes.seen", headers={name: token})
    assert answer.json["tenant"] == acme.id
    assert claims(answer.json["headers"].pop("Tenant-Context"))["tenant"] == acme.id
    assert token not in answer.json["headers"].values()


@cannot(26, Layer.ROUTER)
@cannot(29, Layer.ROUTER)
@cannot(33, Layer.ROUTER)
@pytest.mark.parametrize(
    "name",
    [
        "Tenant-Deadline",
        "tenant-deadline",
        "Tenant-Anything",
        "TENANT-ROLES",
        "Nats-Request-Info",
        "NATS-MSG-TTL",
        "Nats-Service-Error-Code",
        "Nats-Stream",
        "nats-pin-id",
        "Status",
        "Description",
        "baggage",
        "Baggage",
        "TraceParent",
        "tracestate",
    ],
)
async def test_a_header_with_a_meaning_of_its_own_is_dropped(acme: Program, name: str) -> None:
    answer = await acme.ask("notes.seen", headers={name: "1"})
    assert "1" not in answer.json["headers"].values()
    assert answer.json["headers"].keys() == MESH_SETS


@cannot(26, Layer.ROUTER)
@pytest.mark.parametrize("name", ["Nats-Rollup", "nats-rollup", "Nats-TTL", "Nats-Expected-Stream"])
async def test_a_header_that_instructs_jetstream_is_refused(acme: Program, name: str) -> None:
    answer = await acme.ask("notes.remember", {"text": "x"}, headers={name: "1"})
    assert (answer.code, answer.json["status"]) == ("bad_message", 400)
    assert await acme.texts() == []


@cannot(32, Layer.ROUTER)
async def test_a_message_id_is_under_the_tenants_own(acme: Program) -> None:
    assert (await seen(acme, Nats_Msg_Id="7"))["Nats-Msg-Id"] == f"{acme.id}.e.7"


@cannot(26, Layer.ROUTER)
@cannot(32, Layer.ROUTER)
async def test_a_message_id_of_any_case_is_under_the_tenants_own(acme: Program) -> None:
    headers = await seen(acme, nats_msg_id="7")
    assert headers["Nats-Msg-Id"] == f"{acme.id}.e.7"
    assert "nats-msg-id" not in headers


async def test_a_message_id_that_is_too_long_is_refused(acme: Program) -> None:
    answer = await acme.ask("notes.seen", headers={"Nats-Msg-Id": "x" * 129})
    assert (answer.code, answer.json["status"]) == ("bad_message", 400)


@can(33)
async def test_a_trace_goes_on_with_a_new_span(acme: Program) -> None:
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    headers = await seen(acme, traceparent=f"00-{trace_id}-{span_id}-01", tracestate="vendor=1")
    match = TRACE.fullmatch(headers["traceparent"])
    assert match is not None
    assert match[1] == trace_id
    assert match[2] != span_id
    assert headers["tracestate"] == "vendor=1"


async def test_a_handler_knows_the_trace_as_its_request_id(acme: Program) -> None:
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    assert (await acme.ask("notes.seen", headers=headers)).json["request_id"] == trace_id


@cannot(33, Layer.ROUTER)
@pytest.mark.parametrize(
    "value",
    [
        "nonsense",
        "",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"ff-{'1' * 32}-{'1' * 16}-01",
        f"00-{'G' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-01-more",
        f"00-{'1' * 32}-{'1' * 16}",
        "x" * 3000,
    ],
)
async def test_a_malformed_trace_is_replaced(acme: Program, value: str) -> None:
    match = TRACE.fullmatch((await seen(acme, traceparent=value))["traceparent"])
    assert match is not None
    assert match[1] not in {"0" * 32, "1" * 32}


async def test_the_context_says_who_it_is(acme: Program) -> None:
    answer = (await acme.ask("notes.seen")).json
    assert (answer["tenant"], answer["plan"], answer["principal"]) == (acme.id, "business", "edge")


# other tenants' ids and traces


@cannot(32, Layer.ROUTER)
async def test_a_message_id_shadows_no_message_of_another_tenant(
    acme: Program, globex: Program
) -> None:
    for program in (acme, globex):
        await program.client.publish("notes.remember", {"text": program.id}, msg_id="same")
    await eventually(lambda: _remembers(acme, [acme.id]))
    await eventually(lambda: _remembers(globex, [globex.id]))


@cannot(32, Layer.ROUTER)
async def test_a_message_id_that_is_another_tenants_own_shadows_nothing(
    acme: Program, globex: Program
) -> None:
    """Also where it is written out as the journal has it."""
    guess = f"{globex.id}.e.same"
    await acme.client.publish("notes.remember", {"text": "mine"}, msg_id=guess)
    stored = await globex.client.publish("notes.remember", {"text": "theirs"}, msg_id="same")
    assert not stored.duplicate


@can(32)
async def test_a_message_id_drops_the_tenants_own_copy(acme: Program) -> None:
    for _ in range(2):
        stored = await acme.client.publish("notes.remember", {"text": "x"}, msg_id="same")
    assert stored.duplicate


@cannot(33, Layer.ROUTER)
async def test_the_trace_of_another_tenant_gives_nothing_of_it(
    acme: Program, globex: Program
) -> None:
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    for program in (globex, acme):
        answer = (await program.ask("notes.seen", headers={"traceparent": trace})).json
        assert answer["tenant"] == program.id


# line breaks and doubles, as no client would send them


async def raw(program: Program, block: bytes, action: str = "notes.seen") -> dict[str, Any]:
    """The answer to a message with this header block; by default, what a handler sees of it."""
    inbox = f"_INBOX.{program.id}.{secrets.token_hex(8)}"
    answers = await program.plain.subscribe(inbox)
    for _ in range(2):  # nats-py may write the first PING before the SUB
        await program.plain.flush()
    transport = program.plain._transport
    assert transport is not None
    subject = f"tenant.{program.id}.{action}".encode()
    block = b"NATS/1.0\r\n" + block + b"\r\n\r\n"
    size = len(block)
    transport.write(b"HPUB %s %s %d %d\r\n" % (subject, inbox.encode(), size, size + 2))
    transport.write(block + b"{}\r\n")
    await transport.drain()
    return dict(json.loads((await answers.next_msg(PATIENCE)).data))


@cannot(28, Layer.ROUTER)
@pytest.mark.parametrize(
    "end", [b"\r\n", b"\n", b"\r", b"\n\r", b"\r\r\n", b"\x0b", b"\xe2\x80\xa8"]
)
async def test_a_line_break_in_a_value_brings_in_no_context(
    mesh: Mesh, acme: Program, globex: Program, end: bytes
) -> None:
    token = mesh.minter().mint(globex.id, "business", "edge").encode()
    seen = await raw(acme, b"X: a" + end + b"Tenant-Context: " + token)
    assert seen["tenant"] == acme.id
    assert claims(seen["headers"]["Tenant-Context"])["tenant"] == acme.id


@cannot(26, Layer.ROUTER)
@pytest.mark.parametrize("second", [b"Tenant-Context", b"tenant-context", b"Tenant-Context "])
async def test_a_context_that_is_there_twice_is_the_routers_own(
    mesh: Mesh, acme: Program, globex: Program, second: bytes
) -> None:
    token = mesh.minter().mint(globex.id, "business", "edge").encode()
    seen = await raw(acme, b"Tenant-Context: " + token + b"\r\n" + second + b": " + token)
    assert seen["tenant"] == acme.id
    assert token.decode() not in seen["headers"].values()


@cannot(28, Layer.RUNTIME)
async def test_a_line_break_in_what_a_handler_says_brings_in_no_header(acme: Program) -> None:
    answer = await acme.ask("notes.bad", {"text": "reject_lines"})
    assert answer.code == "conflict"
    assert "two" not in answer.headers


@pytest.mark.parametrize("value", ["été-1", "ètè-1"])
@pytest.mark.parametrize("name", [b"Nats-Msg-Id", b"X-Own"])
async def test_a_value_that_is_not_utf_8_is_refused(acme: Program, name: bytes, value: str) -> None:
    answer = await raw(acme, name + b": " + value.encode("latin-1"), "notes.remember")
    assert (answer["status"], answer["code"]) == (400, "bad_message")
    assert name.decode() in answer["detail"]


async def test_message_ids_that_differ_in_one_character_are_two(acme: Program) -> None:
    for value in ("été-1", "ètè-1"):
        stored = await raw(acme, b"Nats-Msg-Id: " + value.encode(), "notes.remember")
        assert "duplicate" not in stored
    assert stored["stream"] == "JOURNAL"


@pytest.mark.parametrize("end", [b"\n", b"\r"])
async def test_a_message_id_with_a_line_break_is_refused(acme: Program, end: bytes) -> None:
    answer = await raw(acme, b"Nats-Msg-Id: a" + end + b"b", "notes.remember")
    assert answer["code"] == "bad_message"


@can(28)
async def test_a_value_with_colons_and_spaces_passes(acme: Program) -> None:
    headers = await seen(acme, X_Own="Tenant-Context: not a header")
    assert headers["X-Own"] == "Tenant-Context: not a header"


async def _remembers(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts
