from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from tenantry import logs
from tenantry.bus import Bus
from tenantry.operator import OperatorHome
from tenantry_workers.router import RouterWorker
from tenantry_workers.tenants import TenantsWorker
from tests import covered, services
from tests.mesh import Mesh, Program
from tests.servers import NatsServers, ServerChoice, add_options
from tests.valkey import Valkey


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    # Coverage is of what runs in the tests' own processes: tracing each process that they start
    # as well would take a third of the whole suite's time.
    if not config.getoption("numprocesses", None):
        covered.take_away()
    # By default structlog writes to what is stdout just then, for a moment that of a command; and
    # it draws tracebacks with all local variables, which takes tenths of a second each.
    logs.configure(json=False)
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.__stderr__), cache_logger_on_first_use=False
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Trace no property test: it runs a hundred times what an example covers."""
    property_test = item.get_closest_marker("hypothesis")
    with covered.paused() if property_test else contextlib.nullcontext():
        return (yield)


def pytest_report_header(config: pytest.Config) -> str:
    return f"nats servers: {config.getoption('servers')}"


@pytest.fixture(scope="session")
def nats_backend(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NatsServers]:
    """Starts servers: `backend = nats_backend(OperatorHome.create)`, then `backend.url`."""
    servers = NatsServers(
        ServerChoice.of(pytestconfig, os.environ), lambda: tmp_path_factory.mktemp("nats")
    )
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def mesh(nats_backend: NatsServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh that tests share, each with tenants of its own: they must not disturb it."""
    mesh = Mesh(nats_backend(OperatorHome.create), tmp_path_factory.mktemp("mesh"))
    mesh.start(TenantsWorker(mesh.options()))
    mesh.start(RouterWorker(mesh.options()))
    mesh.start(mesh.worker(services.notes))
    mesh.start(mesh.worker(services.followers))
    yield mesh
    mesh.close()


@pytest.fixture
def own_mesh(nats_backend: NatsServers, tmp_path: Path) -> Iterator[Mesh]:
    """A mesh of one's own, to break: control plane and one router, no services yet."""
    mesh = Mesh(nats_backend(OperatorHome.create), tmp_path)
    mesh.start(TenantsWorker(mesh.options()))
    mesh.start(RouterWorker(mesh.options()))
    yield mesh
    mesh.close()


@pytest.fixture
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey server of one's own, to break."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


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
    """Inside the mesh, as services, but not by way of the library."""
    async with await mesh.insider("service", *services.NAMES) as bus:
        yield bus


@pytest.fixture
async def control(mesh: Mesh) -> AsyncIterator[Bus]:
    """Inside the mesh, bound by nothing: it sees and does what a test could not otherwise."""
    async with await mesh.insider("root") as bus:
        yield bus
