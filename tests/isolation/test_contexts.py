"""Inside the mesh: what is published past the router needs a good tenant context all the same."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

import pytest

from tenantry.bus import Bus, store
from tenantry.context.token import LIFETIME, Minter
from tenantry.wire import problem
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


@pytest.mark.parametrize("forge", BAD, ids=lambda forge: forge.__name__.strip("_"))
async def test_a_request_without_a_good_context_is_401(
    mesh: Mesh, acme: Program, globex: Program, insider: Bus, forge: Forge
) -> None:
    headers = forge(mesh, acme.id, globex.id)
    answer = await insider.call(f"request.{acme.id}.notes.echo", BODY, headers=headers)
    rejection = problem.load(answer.headers, answer.data)
    assert rejection is not None
    assert (rejection.code, rejection.status) == ("bad_context", 401)


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


async def test_a_request_with_a_good_context_is_served(
    mesh: Mesh, acme: Program, insider: Bus
) -> None:
    headers = {"Tenant-Context": mesh.minter().mint(acme.id, "business", "test")}
    answer = await insider.call(f"request.{acme.id}.notes.echo", BODY, headers=headers)
    assert problem.load(answer.headers, answer.data) is None


async def test_a_stored_message_with_a_good_context_is_handled(
    mesh: Mesh, acme: Program, insider: Bus
) -> None:
    headers = {"Tenant-Context": mesh.minter().mint(acme.id, "business", "test")}
    await store(insider, f"tenant.{acme.id}.notes.remember", BODY, headers=headers)
    await eventually(lambda: _remembers(acme, "notes", ["forged"]))


async def test_the_context_is_checked_before_the_body(acme: Program, insider: Bus) -> None:
    answer = await insider.call(f"request.{acme.id}.notes.echo", b"not json")
    rejection = problem.load(answer.headers, answer.data)
    assert rejection is not None
    assert rejection.code == "bad_context"


async def test_tenants_at_the_same_time_never_see_each_other(mesh: Mesh) -> None:
    async def work(program: Program, number: int) -> None:
        text = f"{program.id}/{number}"
        answer = (await program.ask("notes.mingle", {"text": text, "count": number})).json
        assert set(answer["contexts"]) == {program.id}
        assert (answer["kept"], answer["asked"]) == (text, f"{program.id}:{text}")

    async with mesh.program() as one, mesh.program() as two, mesh.program() as three:
        await asyncio.gather(*(work(p, n) for n in range(150) for p in (one, two, three)))


async def _remembers(program: Program, service: str, texts: list[str]) -> bool:
    return await program.texts(service) == texts
