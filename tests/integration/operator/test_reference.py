"""The configurations in infra/nats, started as their README says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from nats.errors import Error
from nats.js.api import StreamConfig

from tenantry.bus import Bus, api, store
from tenantry.bus.jetstream import StoredMessage, ensure_consumer, get_batch
from tenantry.errors import JetStreamError, Rejection, SetupError
from tenantry.journal import backup, restore
from tenantry.local.server import NatsProcess, find_nats_server, free_port
from tenantry.operator import OperatorHome, creds
from tenantry.runtime import config
from tenantry_workers.tenants.clients import Clients
from tenantry_workers.tenants.provision import provision
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
    root = await mesh.root()
    config = StreamConfig(name=f"R{replicas}", subjects=[f"r{replicas}"], num_replicas=replicas)
    for _ in range(40):
        try:
            info = await root.nats.jetstream(timeout=1).add_stream(config)
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


def syncs_always(server: NatsProcess) -> bool:
    """What the server says of itself, on its monitoring port."""
    port = server.arguments[server.arguments.index("-m") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/varz", timeout=5) as answer:
        return bool(json.load(answer)["jetstream"]["config"].get("sync_always"))


def test_a_durable_server_writes_through(home: OperatorHome, tmp_path: Path) -> None:
    with place(home, "durable/server.conf", tmp_path / "durable") as server:
        assert syncs_always(server)


def test_the_single_server_does_not(single: NatsProcess) -> None:
    assert not syncs_always(single)


async def test_a_durable_server_keeps_streams(
    home: OperatorHome, stack: AsyncExitStack, tmp_path: Path
) -> None:
    with place(home, "durable/server.conf", tmp_path / "durable") as server:
        assert await make_stream(Mesh(home, server.url, tmp_path, stack), 1) == 1


def test_the_durable_nodes_differ_from_the_others_in_that_alone() -> None:
    for name in ("n1.conf", "n2.conf", "n3.conf"):
        plain, durable = ((INFRA / part / name).read_text() for part in ("cluster", "durable"))
        assert _settings(durable) - _settings(plain) == {'sync_interval: "always"'}
        assert _settings(plain) <= _settings(durable)


def _settings(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.strip() and "#" not in line}


def test_the_clusters_mesh_keeps_everything_three_times() -> None:
    mesh = config.load(INFRA / "cluster" / config.FILE)
    parts = [getattr(mesh, field) for field in mesh.__struct_fields__]
    counts = [part.replicas for part in parts if hasattr(part, "replicas")]
    assert len(counts) >= 2
    assert {mesh.replicas, *counts} == {3}


@pytest.mark.slow
async def test_a_mesh_on_the_cluster_outlives_a_node(
    home: OperatorHome, cluster: list[NatsProcess]
) -> None:
    async with await Bus.connect(
        [server.url for server in cluster], creds=home.creds_path("control")
    ) as bus:
        for _ in range(20):  # a cluster without a leader yet does not answer
            with contextlib.suppress(Rejection, JetStreamError):
                await provision(bus, config.load(INFRA / "cluster" / config.FILE))
                break
            await asyncio.sleep(0.5)
        assert (await api(bus, "STREAM.INFO.JOURNAL"))["config"]["num_replicas"] == 3
        kept = [(await store(bus, "tenant.acme.archive.note", b"%d" % n)).seq for n in range(50)]
        await asyncio.to_thread(cluster[1].kill)
        try:
            for _ in range(60):
                with contextlib.suppress(Rejection, JetStreamError):
                    kept.append((await store(bus, "tenant.acme.archive.note", b"after")).seq)
                    break
                await asyncio.sleep(0.25)
            assert len(kept) == 51
            found = await get_batch(bus, "JOURNAL")
            assert set(kept) <= {each.seq for each in found}
        finally:
            await asyncio.to_thread(cluster[1].start)


async def whole(bus: Bus) -> list[StoredMessage]:
    """The journal: any replica may answer, also one that has not all of it yet."""
    last = (await api(bus, "STREAM.INFO.JOURNAL"))["state"]["last_seq"]
    async with asyncio.timeout(20):
        while not (found := await get_batch(bus, "JOURNAL")) or found[-1].seq < last:
            await asyncio.sleep(0.05)
    return found


@pytest.mark.slow
async def test_a_backup_of_a_cluster_comes_back(
    home: OperatorHome, cluster: list[NatsProcess], tmp_path: Path
) -> None:
    urls = [server.url for server in cluster]
    async with await Bus.connect(urls, creds=home.creds_path("control")) as bus:
        for _ in range(20):
            with contextlib.suppress(Rejection, JetStreamError):
                await provision(bus, config.load(INFRA / "cluster" / config.FILE))
                break
            await asyncio.sleep(0.5)
        await ensure_consumer(bus, "JOURNAL", {"name": "lane", "durable_name": "lane"})
        for _ in range(20):
            await store(bus, "tenant.acme.archive.note", b"x")
        before = await whole(bus)
        manifest = await backup.take(bus, tmp_path / "b", version="test")
        await store(bus, "tenant.acme.archive.note", b"later")
        await restore.restore(bus, tmp_path / "b", manifest, replace=True)
        assert (await api(bus, "STREAM.INFO.JOURNAL"))["config"]["num_replicas"] == 3
        assert await whole(bus) == before


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


async def test_the_connections_of_all_nodes_are_known_and_can_be_ended(
    home: OperatorHome, cluster: list[NatsProcess], stack: AsyncExitStack, tmp_path: Path
) -> None:
    here, there = (Mesh(home, server.url, tmp_path, stack) for server in cluster[:2])
    async with await Bus.connect(cluster[0].url, creds=home.creds_path("sys")) as system:
        heard = Clients(system, home.edge_public_key, lambda _tenant: None)
        await heard.start()
        first, second = await here.tenant("acme"), await there.tenant("acme")
        assert await eventually(lambda: len(heard.open["acme"]) == 2)
        asked = Clients(system, home.edge_public_key, lambda _tenant: None)
        await asked.reconcile()
        assert asked.open == heard.open
        newest = max(asked.open["acme"])
        await asked.kick("acme", newest)
        assert await eventually(lambda: second.nats.is_closed)
        assert not first.nats.is_closed
        assert await eventually(lambda: len(heard.open["acme"]) == 1)
        await asked.drop_dead()
        assert asked.open == heard.open
