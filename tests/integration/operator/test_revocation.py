"""Revocations that are pushed at run time: at once, and for good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tenantry.operator import OperatorHome, creds
from tests.integration.operator.clients import Mesh, eventually
from tests.servers import NatsBackend


@pytest.fixture
def backend(nats_backend: Callable[..., NatsBackend]) -> NatsBackend:
    """A server for each test: what is pushed stays."""
    return nats_backend(OperatorHome.create)


@pytest.fixture
def home(backend: NatsBackend) -> OperatorHome:
    return OperatorHome.load(backend.home)


async def revoke(mesh: Mesh, text: str) -> dict[str, object]:
    jwt = mesh.home.edge_claims({creds.public_key_of(text): int(time.time())})
    return await mesh.push(jwt)


async def test_the_server_takes_the_account(mesh: Mesh) -> None:
    answer = await revoke(mesh, mesh.home.tenant_creds("acme"))
    assert (answer["code"], answer["account"]) == (200, mesh.home.edge_public_key)


async def test_an_open_connection_is_cut_off(mesh: Mesh) -> None:
    text = mesh.home.tenant_creds("acme")
    acme = await mesh.connect(text)
    await revoke(mesh, text)
    assert await eventually(lambda: acme.nats.is_closed)


async def test_the_connections_of_others_stay(mesh: Mesh) -> None:
    text = mesh.home.tenant_creds("acme")
    acme, other = await mesh.connect(text), await mesh.tenant("acme")
    await revoke(mesh, text)
    await eventually(lambda: acme.nats.is_closed)
    assert await other.may_publish("tenant.acme.orders.place")


async def test_revoked_credentials_do_not_come_in_again(mesh: Mesh) -> None:
    text = mesh.home.tenant_creds("acme")
    await revoke(mesh, text)
    assert await mesh.refuses(text)


async def test_credentials_come_in_again_without_the_revocation(mesh: Mesh) -> None:
    text = mesh.home.tenant_creds("acme")
    await revoke(mesh, text)
    await mesh.push(mesh.home.edge_claims({}))
    assert not await mesh.refuses(text)


@pytest.mark.parametrize("ending", ["restart", "crash"])
async def test_a_revocation_outlives_the_server(
    mesh: Mesh, backend: NatsBackend, ending: str
) -> None:
    text = mesh.home.tenant_creds("acme")
    await revoke(mesh, text)
    await asyncio.to_thread(backend.stop if ending == "restart" else backend.kill)
    await asyncio.to_thread(backend.start)
    assert await mesh.refuses(text)


@pytest.mark.parametrize("ending", ["restart", "crash"])
async def test_others_come_in_after_that(mesh: Mesh, backend: NatsBackend, ending: str) -> None:
    await revoke(mesh, mesh.home.tenant_creds("acme"))
    await asyncio.to_thread(backend.stop if ending == "restart" else backend.kill)
    await asyncio.to_thread(backend.start)
    assert not await mesh.refuses(mesh.home.tenant_creds("acme"))
