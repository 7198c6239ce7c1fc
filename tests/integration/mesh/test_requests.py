"""A tenant's request, from a plain NATS client to a service and back."""

from __future__ import annotations

import pytest

from tenantry import errors
from tests.mesh import Program
from tests.services import Note


async def test_a_plain_client_gets_the_answer(acme: Program) -> None:
    answer = await acme.ask("notes.echo", b'{"text": "hi"}')
    assert answer.json == {"text": "hi", "count": 0}


async def test_an_answer_has_no_headers(acme: Program) -> None:
    assert (await acme.ask("notes.echo", b'{"text": "hi"}')).headers == {}


async def test_an_answer_is_decoded(acme: Program) -> None:
    assert await acme.client.request("notes.echo", Note("hi", 2), type=Note) == Note("hi", 2)


async def test_a_body_may_be_missing_where_none_is_taken(acme: Program) -> None:
    assert (await acme.ask("notes.texts", b"")).json == {"texts": []}


@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe", b'{"text": "x"} more', b"[" * 100_000, b'{"text": "\xc3"}']
)
async def test_a_body_that_is_not_json_is_refused(acme: Program, body: bytes) -> None:
    answer = await acme.ask("notes.echo", body)
    assert (answer.code, answer.json["status"]) == ("bad_message", 400)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"text": 1}, "$.text"),
        ({"text": "x", "count": -1}, "$.count"),
        ({"text": "x", "count": 1.5}, "$.count"),
        ({}, "$"),
        ([], "$"),
    ],
)
async def test_the_path_of_what_does_not_fit_is_told(
    acme: Program, body: object, path: str
) -> None:
    answer = await acme.ask("notes.echo", body)
    assert (answer.code, answer.json["path"]) == ("bad_message", path)


async def test_the_path_reaches_the_client_as_an_attribute(acme: Program) -> None:
    with pytest.raises(errors.BadMessage) as caught:
        await acme.client.request("notes.echo", {"text": 1})
    assert caught.value.path == "$.text"


async def test_a_service_is_asked_in_the_tenants_name(acme: Program) -> None:
    assert (await acme.ask("notes.relay", {"text": "x"})).json["text"] == f"{acme.id}:x"
