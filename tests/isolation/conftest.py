from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from tenantry.operator import generations
from tenantry_workers.router import RouterWorker
from tenantry_workers.tenants import TenantsWorker
from tests import services
from tests.isolation.attacker import Wire, wire
from tests.isolation.keys import Keys
from tests.isolation.open_mesh import is_open, open_creds, open_home
from tests.mesh import Mesh, Program
from tests.servers import NatsServers

# No deadline: the machine that runs the tests may be busy.
settings.register_profile("isolation", deadline=None)
settings.load_profile("isolation")


@pytest.fixture
async def hostile(mesh: Mesh, globex: Program) -> AsyncIterator[Wire]:
    """A connection that says anything, with the good credentials of globex."""
    async with wire(mesh.url, globex.creds.read_text()) as opened:
        yield opened


@pytest.fixture
async def neighbour(mesh: Mesh, acme: Program) -> AsyncIterator[Wire]:
    """All that acme may hear, heard."""
    async with wire(mesh.url, acme.creds.read_text()) as opened:
        assert await opened.subscribe(f"_INBOX.{acme.id}.>")
        yield opened


@pytest.fixture
def keys(own_mesh: Mesh) -> Keys:
    return Keys(own_mesh)


@pytest.fixture(scope="session")
def open_mesh(
    nats_backend: NatsServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mesh]:
    """A mesh where nats-server lets `anyone` do everything in the account of the tenants."""
    backend = nats_backend(open_home)
    if not is_open(backend.home):
        pytest.skip("--servers external: the permissions of that server are not ours to widen")
    mesh = Mesh(backend, tmp_path_factory.mktemp("open"))
    with pytest.MonkeyPatch.context() as patch:
        # A mesh refuses a directory with other permissions than its own.
        patch.setattr(generations, "outdated", lambda _home: "")
        mesh.start(TenantsWorker(mesh.options()))
        mesh.start(RouterWorker(mesh.options()))
    mesh.start(mesh.worker(services.notes))
    mesh.start(mesh.worker(services.followers))
    yield mesh
    mesh.close()


@pytest.fixture
async def victim(open_mesh: Mesh) -> AsyncIterator[Program]:
    """An ordinary tenant of the open mesh."""
    async with open_mesh.program() as program:
        yield program


@pytest.fixture
async def anyone(open_mesh: Mesh) -> AsyncIterator[Wire]:
    """A program of no tenant that may publish and subscribe everything in EDGE."""
    async with wire(open_mesh.url, open_creds(open_mesh.home)) as opened:
        yield opened
