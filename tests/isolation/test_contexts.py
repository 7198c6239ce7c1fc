"""Inside the mesh: what is published past the router needs a good tenant context all the same."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Callable

import msgspec
import pytest

from tenantry.bus import Bus, store
from tenantry.context.claims import Claims
from tenantry.context.token import LIFETIME, KeyRing, Minter
from tenantry.wire import problem
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually

BODY = b'{"text": "forged"}'

Forge = Callable[[Mesh, str, str], dict[str, str]]
"""Makes headers from the mesh, the tenant of the subject, and another one."""


def _nothing(_mesh: Mesh, _tenant: str, _other: str) -> dict[str, str]:
    return {}


def _of_another(mesh: Mesh, _tenant: str, other: str) -> dict[str, str]:
    return {"Tenant-Context": mesh.minter().mint(other, "business", "edge")}


def _expired(mesh: Mesh, tenant: str, _other: str) -> dict[str, str]:
    long_ago = time.time() - LIFETIME - 60
    return {"Tenant-Context": mesh.minter().mint(tenant, "business", "edge", now=long_ago)}


def _of_the_future(mesh: Mesh, tenant: str, _other: str) -> dict[str, str]:
    return {"Tenant-Context": mesh.minter().mint(tenant, "business", "x", now=time.time() + 600)}


def _unknown_key(_mesh: Mesh, tenant: str, _other: str) -> dict[str, str]:
    minter = Minter("unknown", secrets.token_bytes(32))
    return {"Tenant-Context": minter.mint(tenant, "business", "edge")}


def _foreign_key(mesh: Mesh, tenant: str, _other: str) -> dict[str, str]:
    minter = Minter(mesh.minter().kid, secrets.token_bytes(32))
    return {"Tenant-Context": minter.mint(tenant, "business", "edge")}


def _patched(mesh: Mesh, tenant: str, other: str) -> dict[str, str]:
    """The body of one token with the signature of another."""
    mine = mesh.minter().mint(tenant, "business", "edge").split(".")
    theirs = mesh.minter().mint(other, "business", "edge").split(".")
    return {"Tenant-Context": ".".join((mine[0], mine[1], theirs[2]))}


def _garbage(_mesh: Mesh, _tenant: str, _other: str) -> dict[str, str]:
    return {"Tenant-Context": "x" * 5000}


def _other_case(mesh: Mesh, tenant: str, _other: str) -> dict[str, str]:
    return {"tenant-context": mesh.minter().mint(tenant, "business", "edge")}


BAD = [
    _nothing,
    _of_another,
    _expired,
    _of_the_future,
    _unknown_key,
    _foreign_key,
    _patched,
    _garbage,
    _other_case,
]


@cannot(25, Layer.CONTEXT, without=Layer.ROUTER)
@cannot(26, Layer.CONTEXT, without=Layer.ROUTER)
@cannot(27, Layer.CONTEXT, without=Layer.ROUTER)
@cannot(31, Layer.CONTEXT, without=Layer.ROUTER)
@pytest.mark.parametrize("forge", BAD, ids=lambda forge: forge.__name__.strip("_"))
async def test_a_request_without_a_good_context_is_401(
    mesh: Mesh, acme: Program, globex: Program, insider: Bus, forge: Forge
) -> None:
    headers = forge(mesh, acme.id, globex.id)
    answer = await insider.call(f"request.{acme.id}.notes.echo", BODY, headers=headers)
    rejection = problem.load(answer.headers, answer.data)
    assert rejection is not None
    assert (rejection.code, rejection.status) == ("bad_context", 401)


@cannot(25, Layer.CONTEXT, without=Layer.ROUTER)
@cannot(26, Layer.CONTEXT, without=Layer.ROUTER)
@cannot(27, Layer.CONTEXT, without=Layer.ROUTER)
@cannot(31, Layer.CONTEXT, without=Layer.ROUTER)
@pytest.mark.parametrize("forge", BAD, ids=lambda forge: forge.__name__.strip("_"))
async def test_a_stored_message_without_a_good_context_is_never_handled(
    mesh: Mesh, acme: Program, globex: Program, insider: Bus, forge: Forge
) -> None:
    headers = forge(mesh, acme.id, globex.id)
    await store(insider, f"tenant.{acme.id}.notes.remember", BODY, headers=headers)
    await store(insider, f"tenant.{acme.id}.notes.noted", BODY, headers=headers)
    await acme.client.publish("notes.remember", {"text": "good"})
    await acme.client.request("notes.emit", {"text": "good", "count": 1})
    await eventually(lambda: _remembers(acme, "notes", ["good"]))
    await eventually(lambda: _remembers(acme, "followers", ["good0"]))


@cannot(28, Layer.CONTEXT, without=Layer.ROUTER)
async def test_a_line_break_in_a_value_brings_in_no_context_inside_either(
    mesh: Mesh, acme: Program, insider: Bus
) -> None:
    good = mesh.minter().mint(acme.id, "business", "edge")
    for value in (f"a\r\nTenant-Context: {good}", f"a\nTenant-Context: {good}"):
        answer = await insider.call(f"request.{acme.id}.notes.echo", BODY, headers={"X": value})
        rejection = problem.load(answer.headers, answer.data)
        assert rejection is not None
        assert rejection.code == "bad_context"


@can(25)
@can(27)
async def test_a_request_with_a_good_context_is_served(
    mesh: Mesh, acme: Program, insider: Bus
) -> None:
    headers = {"Tenant-Context": mesh.minter().mint(acme.id, "business", "test")}
    answer = await insider.call(f"request.{acme.id}.notes.echo", BODY, headers=headers)
    assert problem.load(answer.headers, answer.data) is None


@can(31)
async def test_a_stored_message_with_a_good_context_is_handled(
    mesh: Mesh, acme: Program, insider: Bus
) -> None:
    headers = {"Tenant-Context": mesh.minter().mint(acme.id, "business", "test")}
    await store(insider, f"tenant.{acme.id}.notes.remember", BODY, headers=headers)
    await eventually(lambda: _remembers(acme, "notes", ["forged"]))


@cannot(25, Layer.CONTEXT, without=Layer.ROUTER)
async def test_the_context_is_checked_before_the_body(acme: Program, insider: Bus) -> None:
    answer = await insider.call(f"request.{acme.id}.notes.echo", b"not json")
    rejection = problem.load(answer.headers, answer.data)
    assert rejection is not None
    assert rejection.code == "bad_context"


@cannot(43, Layer.RUNTIME)
async def test_tenants_at_the_same_time_never_see_each_other(mesh: Mesh) -> None:
    async def work(program: Program, number: int) -> None:
        text = f"{program.id}/{number}"
        body = {"text": text, "count": number}
        while (answer := await program.ask("notes.mingle", body)).code == "unavailable":
            await asyncio.sleep(0.05)  # on a slow machine the worker is overloaded by so many
        assert not answer.code, answer.json
        assert set(answer.json["contexts"]) == {program.id}
        assert (answer.json["kept"], answer.json["asked"]) == (text, f"{program.id}:{text}")

    async with mesh.program() as one, mesh.program() as two, mesh.program() as three:
        await asyncio.gather(*(work(p, n) for n in range(60) for p in (one, two, three)))


# with the worker's check off


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that take any context for good, whoever signed it, for whom and when."""

    def verify(_ring: KeyRing, token: str | None, _tenant: str, _at: float) -> Claims:
        body = (token or "..").split(".")[1]
        padded = body + "=" * (-len(body) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=Claims)

    monkeypatch.setattr(KeyRing, "verify", verify)


@cannot(27, Layer.CONTEXT, without=Layer.ROUTER)
async def test_the_check_is_what_refuses_another_tenants_context(
    mesh: Mesh, acme: Program, globex: Program, insider: Bus, trusting: None
) -> None:
    """Else the tests above and below would show nothing."""
    headers = _of_another(mesh, acme.id, globex.id)
    answer = await insider.call(f"request.{acme.id}.notes.seen", b"{}", headers=headers)
    assert msgspec.json.decode(answer.data)["tenant"] == globex.id


@cannot(25, Layer.ROUTER, without=Layer.CONTEXT)
@cannot(26, Layer.ROUTER, without=Layer.CONTEXT)
@cannot(27, Layer.ROUTER, without=Layer.CONTEXT)
@cannot(31, Layer.ROUTER, without=Layer.CONTEXT)
@pytest.mark.parametrize("forge", [_of_another, _expired, _foreign_key, _other_case])
async def test_what_a_program_sends_is_replaced_before_any_worker_sees_it(
    mesh: Mesh, acme: Program, globex: Program, trusting: None, forge: Forge
) -> None:
    headers = forge(mesh, acme.id, globex.id)
    answer = await acme.ask("notes.seen", headers=headers)
    assert answer.json["tenant"] == acme.id
    assert not set(headers.values()) & set(answer.json["headers"].values())


@cannot(27, Layer.ROUTER, without=Layer.CONTEXT)
async def test_what_a_program_stores_is_replaced_before_any_worker_sees_it(
    mesh: Mesh, acme: Program, globex: Program, trusting: None
) -> None:
    headers = _of_another(mesh, acme.id, globex.id)
    subject = f"tenant.{acme.id}.notes.remember"
    await acme.plain.publish(subject, b'{"text": "own"}', headers=headers)
    await eventually(lambda: _remembers(acme, "notes", ["own"]))
    assert await globex.texts() == []


async def _remembers(program: Program, service: str, texts: list[str]) -> bool:
    return await program.texts(service) == texts
