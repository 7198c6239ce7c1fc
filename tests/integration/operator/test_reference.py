"""The configurations in infra/nats, started as their README says."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from nats.errors import Error
from nats.js.api import StreamConfig

from tenantry.errors import SetupError
from tenantry.local.server import NatsProcess, find_nats_server, free_port
from tenantry.operator import OperatorHome, creds
from tests.integration.operator.clients import Mesh, eventually

INFRA = Path(__file__).parents[3] / "infra" / "nats"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> OperatorHome:
    try:
        find_nats_server()
    except SetupError as error:
        pytest.skip(f"NO NATS SERVER, NOT TESTED. {error}")
    return OperatorHome.create(tmp_path_factory.mktemp("reference") / "home")


def place(home: OperatorHome, config: str, directory: Path, *arguments: str) -> NatsProcess:
    """Copy a configuration and operator.conf side by side; its ports are free ones."""
    directory.mkdir()
    shutil.copy(INFRA / config, directory / "server.conf")
    shutil.copy(home.path / "operator.conf", directory)
    options = ("-a", "127.0.0.1", "-m", str(free_port()), *arguments)
    return NatsProcess(directory / "server.conf", port=free_port(), arguments=options)


@pytest.fixture
def single(home: OperatorHome, tmp_path: Path) -> Iterator[NatsProcess]:
    with place(home, "single/server.conf", tmp_path / "single") as server:
        yield server


@pytest.fixture(scope="module")
def cluster(
    home: OperatorHome, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[NatsProcess]]:
    directory = tmp_path_factory.mktemp("cluster")
    ports = [free_port() for _ in range(3)]
    routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
    with ExitStack() as stack:
        servers = []
        for number, port in enumerate(ports, 1):
            ours = ("--cluster", f"nats://127.0.0.1:{port}", "--routes", routes)
            server = place(home, f"cluster/n{number}.conf", directory / f"n{number}", *ours)
            servers.append(stack.enter_context(server))
        yield servers


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def make_stream(mesh: Mesh, replicas: int) -> int:
    """How many nodes hold the stream. A cluster without a leader yet does not answer."""
    control = await mesh.role("control")
    config = StreamConfig(name=f"R{replicas}", subjects=[f"r{replicas}"], num_replicas=replicas)
    for _ in range(40):
        try:
            info = await control.nats.jetstream(timeout=1).add_stream(config)
        except Error:
            await asyncio.sleep(0.25)
        else:
            return 1 + len(info.cluster.replicas or []) if info.cluster else 1
    raise AssertionError("no stream in time")


async def test_the_single_server_takes_clients(
    home: OperatorHome, single: NatsProcess, stack: AsyncExitStack, tmp_path: Path
) -> None:
    mesh = Mesh(home, single.url, tmp_path, stack)
    assert await (await mesh.tenant("acme")).may_publish("tenant.acme.orders.place")


async def test_the_single_server_keeps_streams(
    home: OperatorHome, single: NatsProcess, stack: AsyncExitStack, tmp_path: Path
) -> None:
    assert await make_stream(Mesh(home, single.url, tmp_path, stack), 1) == 1


async def test_the_single_server_keeps_its_data_where_it_was_started(single: NatsProcess) -> None:
    assert {path.name for path in (single.cwd / "data").iterdir()} == {"accounts", "jetstream"}


@pytest.mark.slow
async def test_a_cluster_holds_a_stream_three_times(
    home: OperatorHome, cluster: list[NatsProcess], stack: AsyncExitStack, tmp_path: Path
) -> None:
    assert await make_stream(Mesh(home, cluster[0].url, tmp_path, stack), 3) == 3


@pytest.mark.slow
async def test_a_message_passes_between_nodes(
    home: OperatorHome, cluster: list[NatsProcess], stack: AsyncExitStack, tmp_path: Path
) -> None:
    first, second = (Mesh(home, server.url, tmp_path, stack) for server in cluster[:2])
    router = await first.role("router")
    edge = await router.subscribe("edge.>")
    acme = await second.tenant("acme")
    for _ in range(20):  # interest takes a moment to reach the other node
        await acme.nats.publish("tenant.acme.orders.place", b"x")
        await acme.settle()
        await asyncio.sleep(0.1)
    assert (await edge.next_msg(1)).subject == "edge.acme.orders.place"


@pytest.mark.slow
async def test_a_revocation_cuts_off_on_all_nodes(
    home: OperatorHome, cluster: list[NatsProcess], stack: AsyncExitStack, tmp_path: Path
) -> None:
    first, second = (Mesh(home, server.url, tmp_path, stack) for server in cluster[:2])
    text = home.tenant_creds("acme")
    acme = await second.connect(text)
    await first.push(home.edge_claims({creds.public_key_of(text): int(time.time())}))
    assert await eventually(lambda: acme.nats.is_closed)


@pytest.mark.slow
async def test_a_node_that_was_down_learns_of_a_revocation(
    home: OperatorHome, cluster: list[NatsProcess], stack: AsyncExitStack, tmp_path: Path
) -> None:
    first, third = (Mesh(home, cluster[n].url, tmp_path, stack) for n in (0, 2))
    text = home.tenant_creds("acme")
    await asyncio.to_thread(cluster[2].kill)
    await first.push(home.edge_claims({creds.public_key_of(text): int(time.time())}))
    await asyncio.to_thread(cluster[2].start)
    deadline = time.monotonic() + 15
    while not (refused := await third.refuses(text)) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    assert refused
