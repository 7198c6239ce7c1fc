"""Keys on a live mesh: each kind is rotated under load, and outlives a restart of NATS."""

from __future__ import annotations

import asyncio

import pytest

from tenantry import errors
from tenantry.bus import Bus
from tenantry.operator import OperatorHome, plant
from tenantry_workers.router import RouterWorker
from tests.isolation.keys import ROLES, Keys, asked, copied
from tests.isolation.load import loaded
from tests.mesh import Mesh
from tests.services import notes

pytestmark = pytest.mark.slow


async def test_context_keys_rotate_under_load(own_mesh: Mesh, keys: Keys) -> None:
    own_mesh.start(RouterWorker(own_mesh.options()))
    async with loaded(own_mesh) as load:
        for _ in range(2):
            old = await keys.id("context")
            await keys("rotate", "context")
            await load.goes_on()
            assert await keys.id("context") != old
            assert await keys.id("context", "retired") == old


@pytest.mark.parametrize("role", ROLES)
async def test_the_key_of_a_role_rotates_under_load(own_mesh: Mesh, keys: Keys, role: str) -> None:
    own_mesh.start(RouterWorker(own_mesh.options()))
    async with loaded(own_mesh) as load:
        old = await keys.id(role)
        await keys("rotate", role, "--overlap", "60")
        await load.goes_on()
        assert await keys.id(role, "revoked") == old


async def test_one_router_and_one_worker_rotate_without_a_failure(
    own_mesh: Mesh, keys: Keys
) -> None:
    async with loaded(own_mesh) as load:
        await keys("rotate", "router", "--overlap", "60")
        await keys("rotate", "service", "--overlap", "60")
        await load.goes_on()


async def test_the_tenants_key_rotates_under_load(own_mesh: Mesh, keys: Keys) -> None:
    async with loaded(own_mesh) as load:
        await keys("rotate", "tenants")
        await load.goes_on()
        async with own_mesh.program() as new:
            assert await asked(new) == ""


async def test_all_that_was_rotated_outlives_a_restart_of_nats(own_mesh: Mesh, keys: Keys) -> None:
    with copied(own_mesh, "router") as stolen:
        for kind in ("context", "tenants"):
            await keys("rotate", kind)
        for role in ROLES:
            await keys("rotate", role, "--overlap", "60")
        await asyncio.to_thread(own_mesh.backend.restart)
        with pytest.raises(errors.ConnectionFailed):
            await Bus.connect(own_mesh.url, creds=stolen)
    own_mesh.start(own_mesh.worker(notes))
    async with own_mesh.program() as program:
        await own_mesh.ready(program, "notes.echo")
        assert await asked(program) == ""


async def test_an_account_by_a_replaced_operators_key_is_refused(
    own_mesh: Mesh, keys: Keys
) -> None:
    stolen = OperatorHome.load(own_mesh.home.path)
    stolen._key(plant.OPERATOR_KEY)  # as the thief has it
    await keys("rotate", "operator")
    await asyncio.to_thread(own_mesh.backend.restart)
    home = OperatorHome.load(own_mesh.home.path)
    with pytest.raises(errors.SetupError, match="not signed by our operator"):
        home.validate_edge(stolen.edge_claims({}))
    own_mesh.start(own_mesh.worker(notes))
    async with own_mesh.program() as program:
        await own_mesh.ready(program, "notes.echo")
        assert await asked(program) == ""
