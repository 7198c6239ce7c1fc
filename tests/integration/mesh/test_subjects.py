"""Subjects that are not `tenant.<id>.<service>.<action>`."""

from __future__ import annotations

import asyncio

import pytest

from tests.mesh import PATIENCE, Answer, Mesh, Program


@pytest.mark.parametrize("rest", ["notes", "notes.echo.more", "notes.echo.more.yet", ">", "*"])
async def test_a_wrong_number_of_tokens_is_told(acme: Program, rest: str) -> None:
    answer = await acme.ask(rest, {"text": "x"})
    assert (answer.code, answer.json["status"]) == ("bad_subject", 400)


@pytest.mark.parametrize(
    "rest",
    ["*.echo", "notes.*", "notes.>", "*.*", "Notes.echo", "notes.écho", "$JS.API", "_INBOX.x"],
)
async def test_a_token_that_names_nothing_is_an_unknown_action(acme: Program, rest: str) -> None:
    answer = await acme.ask(rest, {"text": "x"})
    assert (answer.code, answer.json["status"]) == ("unknown_action", 404)


@pytest.mark.parametrize(
    "subject",
    [
        "tenant",
        "tenant.{id}",
        "tenant.{id}.",
        "tenant.{id}..echo",
        "tenant.{id}.notes.",
        "tenant..notes.echo",
        "tenant.*.notes.echo",
        "edge.{id}.notes.echo",
        "request.{id}.notes.echo",
        "notes.echo",
    ],
)
async def test_what_is_not_below_the_own_tenant_is_refused_by_the_server(
    mesh: Mesh, acme: Program, subject: str
) -> None:
    refused: asyncio.Queue[str] = asyncio.Queue()

    async def on_error(error: Exception) -> None:
        refused.put_nowait(str(error))

    plain = await mesh.plain(acme.creds, error_cb=on_error)
    subject = subject.format(id=acme.id)
    await plain.publish(subject, b"{}", reply=f"_INBOX.{acme.id}.x")
    assert "permissions violation" in await asyncio.wait_for(refused.get(), PATIENCE)
    await plain.close()


async def test_the_right_subject_is_answered(acme: Program) -> None:
    subject = f"tenant.{acme.id}.notes.echo"
    answer = Answer(await acme.plain.request(subject, b'{"text": "x"}', timeout=PATIENCE))
    assert answer.code == ""
