"""A tenant that is suspended, resumed or deleted, as its programs meet it."""

from __future__ import annotations

import pytest

from tests.mesh import Mesh, Program, eventually

NOTE = {"text": "x"}
ACTIONS = ["notes.echo", "notes.remember", "notes.nothing"]


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_suspended_tenant_is_refused(mesh: Mesh, acme: Program, action: str) -> None:
    await mesh.control("suspend", id=acme.id)
    await eventually(lambda: _is(acme, "tenant_suspended"))
    answer = await acme.ask(action, NOTE)
    assert (answer.code, answer.json["status"]) == ("tenant_suspended", 403)


async def test_the_reason_is_not_told(mesh: Mesh, acme: Program) -> None:
    await mesh.control("suspend", id=acme.id, reason="has not paid")
    await eventually(lambda: _is(acme, "tenant_suspended"))
    assert b"paid" not in (await acme.ask("notes.echo", NOTE)).data


async def test_a_resumed_tenant_is_served_again(mesh: Mesh, acme: Program) -> None:
    await mesh.control("suspend", id=acme.id)
    await eventually(lambda: _is(acme, "tenant_suspended"))
    await mesh.control("resume", id=acme.id)
    await eventually(lambda: _is(acme, ""))


async def test_a_suspended_tenant_keeps_its_connections(mesh: Mesh, acme: Program) -> None:
    await mesh.control("suspend", id=acme.id)
    await eventually(lambda: _is(acme, "tenant_suspended"))
    assert acme.plain.is_connected


async def test_others_do_not_feel_a_suspension(mesh: Mesh, acme: Program, globex: Program) -> None:
    await mesh.control("suspend", id=acme.id)
    await eventually(lambda: _is(acme, "tenant_suspended"))
    assert await _is(globex, "")


async def test_what_was_taken_before_a_suspension_is_still_done(mesh: Mesh, acme: Program) -> None:
    for number in range(20):
        await acme.client.publish("notes.remember", {"text": str(number)})
    await mesh.control("suspend", id=acme.id)
    await mesh.control("resume", id=acme.id)
    texts = [str(number) for number in range(20)]
    await eventually(lambda: _is(acme, ""))
    await eventually(lambda: _remembers(acme, texts))


async def _is(program: Program, code: str) -> bool:
    return (await program.ask("notes.echo", NOTE)).code == code


async def _remembers(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts
