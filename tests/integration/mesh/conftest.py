from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tenantry.bus import Bus
from tests.mesh import Mesh, Program


@pytest.fixture
async def acme(mesh: Mesh) -> AsyncIterator[Program]:
    async with mesh.program() as program:
        yield program


@pytest.fixture
async def globex(mesh: Mesh) -> AsyncIterator[Program]:
    async with mesh.program() as program:
        yield program


@pytest.fixture
async def small(mesh: Mesh) -> AsyncIterator[Program]:
    """A tenant on the smallest plan."""
    async with mesh.program(plan="standard") as program:
        yield program


@pytest.fixture
async def ghost(mesh: Mesh) -> AsyncIterator[Program]:
    """Credentials that are signed, for a tenant that there is no record of."""
    async with mesh.ghost() as program:
        yield program


@pytest.fixture
async def insider(mesh: Mesh) -> AsyncIterator[Bus]:
    """Inside the mesh, as a service, but not by way of the library."""
    async with await mesh.insider("service") as bus:
        yield bus


@pytest.fixture
async def control(mesh: Mesh) -> AsyncIterator[Bus]:
    """Inside the mesh, as the control plane: may read everything."""
    async with await mesh.insider("control") as bus:
        yield bus
