"""What is not admitted, and the error that says so."""

from __future__ import annotations

import pytest

from tenantry import errors
from tests import services
from tests.mesh import Mesh, Program, eventually

NOTE = {"text": "x"}


async def test_a_tenant_without_a_record_is_unknown(ghost: Program) -> None:
    answer = await ghost.ask("notes.echo", NOTE)
    assert (answer.code, answer.json["status"]) == ("tenant_unknown", 403)


async def test_a_tenant_without_a_record_cannot_find_out_what_there_is(ghost: Program) -> None:
    answers = [await ghost.ask(action, NOTE) for action in ("notes.echo", "nobody.nothing", "x")]
    assert len({answer.json["detail"] for answer in answers}) == 1


@pytest.mark.parametrize("action", ["nobody.nothing", "notes.nothing", "nobody.echo"])
async def test_what_no_service_declares_is_unknown(acme: Program, action: str) -> None:
    answer = await acme.ask(action, NOTE)
    assert (answer.code, answer.json["status"]) == ("unknown_action", 404)


async def test_a_private_action_is_as_unknown_as_one_that_is_not_there(acme: Program) -> None:
    private, missing = await acme.ask("notes.private"), await acme.ask("notes.missing")
    shown = private.json["detail"].replace("private", "missing")
    assert (private.code, shown) == ("unknown_action", missing.json["detail"])


@pytest.mark.parametrize("event", ["notes.noted", "tenants.tenant_provisioned"])
async def test_an_event_cannot_come_from_outside(acme: Program, event: str) -> None:
    assert (await acme.ask(event, NOTE)).code == "unknown_action"


@pytest.mark.parametrize("action", ["tenants.create", "router.renew_context"])
async def test_the_control_plane_is_not_there_from_outside(acme: Program, action: str) -> None:
    assert (await acme.ask(action, {"id": acme.id})).code == "unknown_action"


@pytest.mark.parametrize("action", ["notes.echo", "notes.remember"])
async def test_a_body_over_the_plans_limit_is_too_large(small: Program, action: str) -> None:
    answer = await small.ask(action, b'{"text": "' + b"x" * 262_133 + b'"}')
    assert (answer.code, answer.json["status"]) == ("too_large", 413)


async def test_a_body_at_the_plans_limit_is_taken(small: Program) -> None:
    answer = await small.ask("notes.echo", b'{"text": "' + b"x" * 262_132 + b'"}')
    assert answer.code == ""


async def test_a_larger_plan_takes_a_larger_body(acme: Program) -> None:
    answer = await acme.ask("notes.echo", b'{"text": "' + b"x" * 262_133 + b'"}')
    assert answer.code == ""


async def test_a_request_that_nothing_serves_now_is_refused_at_once(
    mesh: Mesh, acme: Program
) -> None:
    running = mesh.start(mesh.worker(services.counting("briefly")))
    await eventually(lambda: _served(acme, "briefly.who"))
    await running.stop()
    answer = await acme.ask("briefly.who")
    assert (answer.code, answer.json["status"]) == ("unavailable", 503)
    assert int(answer.headers["Retry-After"]) >= 1


async def test_what_nothing_serves_now_is_served_when_it_is_back(mesh: Mesh, acme: Program) -> None:
    await mesh.start(mesh.worker(services.counting("away"))).stop()
    running = mesh.start(mesh.worker(services.counting("away")))
    await eventually(lambda: _served(acme, "away.who"))
    await running.stop()


async def test_a_rejection_reaches_the_client_as_its_class(ghost: Program) -> None:
    with pytest.raises(errors.TenantUnknown):
        await ghost.client.request("notes.echo", NOTE)


async def test_a_refused_message_is_not_handled(acme: Program, small: Program) -> None:
    await small.ask("notes.remember", b'{"text": "' + b"x" * 262_133 + b'"}')
    await small.ask("notes.remember", {"text": "fits"})
    await eventually(lambda: _remembers(small, ["fits"]))


async def _served(program: Program, action: str) -> bool:
    return (await program.ask(action)).code == ""


async def _remembers(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts
