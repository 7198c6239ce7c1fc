"""What an error looks like on the wire (RFC 9457, ADR-32), and what it does not tell."""

from __future__ import annotations

import re
import secrets

import pytest

from tenantry import errors
from tenantry.errors import BY_CODE
from tests.mesh import Program

CODES = {
    "bad_subject": ("notes", {}),
    "bad_message": ("notes.echo", {"text": 1}),
    "unknown_action": ("notes.nothing", {}),
    "conflict": ("notes.bad", {"text": "reject"}),
    "handler_failed": ("notes.bad", {"text": "raise"}),
    "deadline_exceeded": ("notes.bad", {"text": "hang"}),
}


@pytest.mark.parametrize("code", CODES)
async def test_every_problem_has_the_same_members(acme: Program, code: str) -> None:
    problem = (await acme.ask(*CODES[code])).json
    kind = BY_CODE[code]
    assert problem["type"] == f"urn:tenantry:error:{code}"
    assert (problem["code"], problem["status"], problem["title"]) == (code, kind.status, kind.title)
    assert problem["detail"]
    assert re.fullmatch(r"urn:trace:[0-9a-f]{32}", problem["instance"])


@pytest.mark.parametrize("code", CODES)
async def test_the_headers_are_those_of_a_nats_service(acme: Program, code: str) -> None:
    answer = await acme.ask(*CODES[code])
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Nats-Service-Error-Code"] == str(BY_CODE[code].status)
    assert answer.headers["Nats-Service-Error"].startswith(f"{code}: ")


@pytest.mark.parametrize("code", CODES)
async def test_the_trace_id_is_the_askers_own(acme: Program, code: str) -> None:
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    answer = await acme.ask(*CODES[code], headers=headers)
    assert answer.json["instance"] == f"urn:trace:{trace_id}"


async def test_two_errors_of_one_program_have_different_trace_ids(acme: Program) -> None:
    first, second = await acme.ask("notes.nothing"), await acme.ask("notes.nothing")
    assert first.json["instance"] != second.json["instance"]


async def test_a_services_own_members_are_in_the_problem(acme: Program) -> None:
    problem = (await acme.ask("notes.bad", {"text": "reject"})).json
    assert (problem["detail"], problem["hint"], problem["field"]) == (
        "as asked",
        "do not ask",
        "text",
    )


async def test_a_services_own_members_reach_the_client(acme: Program) -> None:
    with pytest.raises(errors.Conflict) as caught:
        await acme.client.request("notes.bad", {"text": "reject"})
    assert (caught.value.message, caught.value.hint) == ("as asked", "do not ask")
    assert caught.value.extensions["field"] == "text"


async def test_a_member_that_json_cannot_carry_is_left_out(acme: Program) -> None:
    answer = await acme.ask("notes.bad", {"text": "reject_unencodable"})
    assert (answer.code, "member" in answer.json) == ("conflict", False)


@pytest.mark.parametrize("how", ["reject_long", "reject_large"])
async def test_a_rejection_of_any_size_is_answered(acme: Program, how: str) -> None:
    answer = await acme.ask("notes.bad", {"text": how})
    assert (answer.code, answer.json["detail"][:8], answer.json["field"]) == (
        "conflict",
        "as asked",
        "text",
    )


async def test_a_problem_that_cannot_be_sent_is_a_failure_of_the_handler(acme: Program) -> None:
    assert (await acme.ask("notes.bad", {"text": "reject_none"})).code == "handler_failed"


async def test_a_detail_of_many_lines_is_one_line_in_the_header(acme: Program) -> None:
    answer = await acme.ask("notes.bad", {"text": "reject_lines"})
    assert answer.headers["Nats-Service-Error"] == "conflict: one two: three"
    assert answer.json["detail"] == "one\r\ntwo: three"


@pytest.mark.parametrize(
    "how", ["raise", "chained", "hang", "type", "unencodable", "timeout", "cancel"]
)
async def test_nothing_of_the_inside_is_told(acme: Program, how: str) -> None:
    answer = await acme.ask("notes.bad", {"text": how})
    told = answer.data.decode() + str(answer.headers)
    for secret in ("secret", "inside", "Traceback", "Error(", ".py", "object", "services"):
        assert secret not in told
