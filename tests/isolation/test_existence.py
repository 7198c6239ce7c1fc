"""What a stranger can learn about whether a tenant exists: nothing. No time is measured here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tenantry.bus import Bus
from tenantry.operator.creds import render
from tenantry.wire import problem
from tests.isolation.attacker import Wire, user, user_jwt, wire
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually

NOTE = b'{"text": "x"}'


@pytest.fixture
async def others(mesh: Mesh) -> AsyncIterator[dict[str, str]]:
    """Ids in every state that there is."""
    names = {}
    for state, change in (("active", ""), ("suspended", "suspend"), ("deleted", "delete")):
        names[state] = (await mesh.tenant()).stem
        if change:
            await mesh.control(change, id=names[state])
    async with mesh.ghost() as ghost:
        yield names | {"signed, never made": ghost.id, "never heard of": "q" * len(ghost.id)}


def alike(told: dict[str, object], names: dict[str, str]) -> set[str]:
    """What was told of each, without its name: one text where nothing can be learnt."""
    return {repr(each).replace(names[state], "-") for state, each in told.items()}


@cannot(48, Layer.SERVER)
async def test_a_subject_of_any_other_tenant_is_refused_alike(
    hostile: Wire, globex: Program, others: dict[str, str]
) -> None:
    told = {}
    for state, name in others.items():
        before = len(hostile.errors)
        await hostile.publish(f"tenant.{name}.notes.echo", NOTE, reply=f"_INBOX.{globex.id}.x")
        await hostile.subscribe(f"_INBOX.{name}.>")
        await hostile.subscribe(f"tenant.{name}.notes.echo", "router")
        told[state] = hostile.errors[before:]
    assert len(alike(told, others)) == 1
    assert all(len(each) == 3 for each in told.values())
    assert hostile.heard == []


@cannot(48, Layer.SERVER)
async def test_a_login_in_any_name_is_refused_alike(mesh: Mesh, others: dict[str, str]) -> None:
    told = {}
    for state, name in others.items():
        key = user()
        forged = render(user_jwt(mesh.home, key, key, [f"tenant:{name}"]), key)
        async with wire(mesh.url) as stranger:
            assert not await stranger.login(forged)
            told[state] = stranger.errors
    assert alike(told, others) == {"['Authorization Violation']"}


@cannot(48, Layer.ROUTER)
async def test_a_reply_subject_in_any_other_tenant_gets_the_same_silence(
    hostile: Wire, globex: Program, others: dict[str, str]
) -> None:
    await hostile.subscribe(f"_INBOX.{globex.id}.>")
    for name in others.values():
        for action in ("echo", "remember", "nothing"):
            to = f"tenant.{globex.id}.notes.{action}"
            assert await hostile.publish(to, NOTE, reply=f"_INBOX.{name}.x")
    await hostile.publish(f"tenant.{globex.id}.notes.echo", NOTE, reply=f"_INBOX.{globex.id}.x")

    async def came() -> bool:
        return bool(hostile.heard)

    await eventually(came)
    assert [each.data for each in hostile.heard] == [b'{"text":"x","count":0}']


@cannot(48, Layer.ROUTER, without=Layer.SERVER)
async def test_a_deleted_tenant_is_as_unknown_as_one_that_never_was(
    mesh: Mesh, acme: Program, ghost: Program
) -> None:
    """With credentials that the tenants worker does not know of, so that it can't revoke them."""
    creds = mesh.folder / f"{acme.id}.creds"
    creds.write_text(mesh.home.tenant_creds(acme.id))
    plain = await mesh.plain(creds)
    program = Program(acme.id, creds, acme.client, plain)
    assert await _is(program, "")
    await mesh.control("delete", id=acme.id)
    await eventually(lambda: _is(program, "tenant_unknown"))
    for action in ("notes.echo", "notes.remember", "notes.nothing", "notes"):
        mine, theirs = [await each.ask(action, {"text": "x"}) for each in (program, ghost)]
        assert {**mine.json, "instance": ""} == {**theirs.json, "instance": ""}
        assert mine.headers.keys() == theirs.headers.keys()
    await plain.close()


@cannot(48, Layer.CONTEXT, without=Layer.ROUTER)
async def test_past_the_router_the_context_is_refused_alike(
    mesh: Mesh, globex: Program, insider: Bus, others: dict[str, str]
) -> None:
    headers = {"Tenant-Context": mesh.minter().mint(globex.id, "business", "edge")}
    told: dict[str, object] = {}
    for state, name in others.items():
        answer = await insider.call(f"request.{name}.notes.texts", b"{}", headers=headers)
        rejection = problem.load(answer.headers, answer.data)
        assert rejection is not None
        told[state] = (rejection.code, rejection.message, rejection.hint, rejection.status)
    assert len(alike(told, others)) == 1


@cannot(48, Layer.STORE)
async def test_a_message_id_is_new_whoever_else_has_used_it(acme: Program, globex: Program) -> None:
    """Else "duplicate" would tell what another tenant has sent."""
    told = []
    for program, msg_id in (
        *((acme, "order-1"), (acme, f"{globex.id}.e.order-1"), (globex, "order-1")),
        *((globex, f"{acme.id}.e.order-1"), (globex, "order-1")),
    ):
        stored = await program.client.publish("notes.remember", {"text": "x"}, msg_id=msg_id)
        told.append(stored.duplicate)
    assert told == [False, False, False, False, True]


@cannot(48, Layer.ROUTER)
async def test_an_action_that_is_not_public_is_as_unknown_as_one_that_is_not_there(
    acme: Program,
) -> None:
    told = set()
    for action in ("notes.private", "notes.noted", "followers.whose", "notes.missing", "no.thing"):
        answer = await acme.ask(action, {"text": "x"})
        told.add(str({**answer.json, "instance": ""}).replace(action, "-"))
    assert len(told) == 1


@can(48)
async def test_of_itself_a_tenant_learns_what_it_is(mesh: Mesh, acme: Program) -> None:
    assert await _is(acme, "")
    await mesh.control("suspend", id=acme.id)
    await eventually(lambda: _is(acme, "tenant_suspended"))


async def _is(program: Program, code: str) -> bool:
    return (await program.ask("notes.echo", {"text": "x"})).code == code
