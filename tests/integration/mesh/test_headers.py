"""Headers from outside: what the mesh gives meaning to is dropped, the rest passes."""

from __future__ import annotations

import base64
import json
import re
import secrets
from typing import Any

import pytest

from tests.mesh import Mesh, Program

TRACE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


async def seen(program: Program, **headers: str) -> dict[str, str]:
    """The headers that reach the handler."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return dict((await program.ask("notes.seen", headers=fields)).json["headers"])


def claims(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))


async def test_a_handler_sees_the_context_the_deadline_and_the_trace(acme: Program) -> None:
    assert (await seen(acme)).keys() == {"Tenant-Context", "Tenant-Deadline", "traceparent"}


@pytest.mark.parametrize("name", ["X-Own", "Idempotency-Key", "content-type", "Natsy", "tenants"])
async def test_a_programs_own_headers_pass(acme: Program, name: str) -> None:
    answer = await acme.ask("notes.seen", headers={name: "value"})
    assert answer.json["headers"][name] == "value"


@pytest.mark.parametrize("name", ["Tenant-Context", "tenant-context", "TENANT-CONTEXT"])
async def test_a_forged_context_is_replaced_by_the_routers(
    mesh: Mesh, acme: Program, globex: Program, name: str
) -> None:
    token = mesh.minter().mint(globex.id, "business", "edge")
    answer = await acme.ask("notes.seen", headers={name: token})
    assert answer.json["tenant"] == acme.id
    assert claims(answer.json["headers"].pop("Tenant-Context"))["tenant"] == acme.id
    assert token not in answer.json["headers"].values()


@pytest.mark.parametrize(
    "name",
    [
        "Tenant-Deadline",
        "tenant-deadline",
        "Tenant-Anything",
        "TENANT-ROLES",
        "Nats-Request-Info",
        "Nats-Expected-Stream",
        "Nats-Expected-Last-Subject-Sequence",
        "Nats-Rollup",
        "nats-rollup",
        "Nats-TTL",
        "NATS-MSG-TTL",
        "Nats-Service-Error-Code",
        "Nats-Pin-Id",
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
    assert answer.json["headers"].keys() == {"Tenant-Context", "Tenant-Deadline", "traceparent"}


async def test_a_message_id_is_under_the_tenants_own(acme: Program) -> None:
    assert (await seen(acme, Nats_Msg_Id="7"))["Nats-Msg-Id"] == f"{acme.id}.e.7"


async def test_a_message_id_of_any_case_is_under_the_tenants_own(acme: Program) -> None:
    headers = await seen(acme, nats_msg_id="7")
    assert headers["Nats-Msg-Id"] == f"{acme.id}.e.7"
    assert "nats-msg-id" not in headers


async def test_a_message_id_that_is_too_long_is_refused(acme: Program) -> None:
    answer = await acme.ask("notes.seen", headers={"Nats-Msg-Id": "x" * 129})
    assert (answer.code, answer.json["status"]) == ("bad_message", 400)


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
