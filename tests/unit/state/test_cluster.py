"""State on three real servers, whose replicas lag behind each other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chaos.cluster import Cluster, free_ports
from chaos.process import Process
from tenantry import Context
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.context.latest import Latest
from tenantry.operator import OperatorHome
from tenantry.streams import bucket_config
from tests.mesh import root_creds
from tests.unit.state.handling import Handling

ROUNDS, MESSAGES = 8, 25


class Servers:
    """Three servers that all keep the bucket, and a connection to each."""

    def __init__(self, nodes: list[Process], buses: list[Bus]) -> None:
        self.nodes = nodes
        self.buses = buses

    async def pair(self) -> tuple[int, int]:
        """The server that leads the bucket, and one that follows."""
        info = await js.api(self.buses[0], "STREAM.INFO.KV_state")
        leader = int(info["cluster"]["leader"].removeprefix("n")) - 1
        return leader, (leader + 1) % 3


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    home = OperatorHome.create(tmp_path / "operator")
    ports = free_ports(3)
    nodes = list(Cluster(home.path, tmp_path, ports).nodes())
    buses: list[Bus] = []
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        creds = root_creds(home, tmp_path)
        for port in ports:
            url = f"nats://127.0.0.1:{port}"
            buses.append(await Bus.connect(url, creds=creds, name=f"test-{port}"))
        await js.ensure_stream(buses[0], bucket_config("state", replicas=3))
        yield Servers(nodes, buses)
    finally:
        for node in nodes:
            node.resume()
        for bus in buses:
            await bus.close()
        for node in nodes:
            await node.kill()


async def test_a_bucket_on_three_servers_is_replicated(servers: Servers) -> None:
    assert await Latest(servers.buses[1]).is_replicated("orders")


@pytest.mark.slow
async def test_messages_count_once_though_the_next_owner_asks_a_server_that_was_away(
    servers: Servers,
) -> None:
    leader, follower = await servers.pair()
    first = await Handling.make(servers.buses[leader], replicas=3)
    seqs, claim = itertools.count(2), object()

    async def set_count(ctx: Context) -> None:
        await ctx.state.put("count", ctx.seq)  # it reads nothing, and so asks nobody who is away

    await first.handle(1, set_count, claim=claim)
    for _ in range(ROUNDS):
        servers.nodes[follower].suspend()
        for seq in itertools.islice(seqs, MESSAGES):
            await first.handle(seq, set_count, claim=claim)
        heir = Handling(servers.buses[follower], first.tenant, first.stream)
        handling = heir.handle(next(seqs), heir.add_and_tell, claim=object())
        handled = asyncio.create_task(handling)
        await asyncio.sleep(0)  # its question is there when the server wakes up
        servers.nodes[follower].resume()
        await handled
    told = [int(body) for body in await first.told()]
    assert told == [1 + MESSAGES * n + n for n in range(1, 1 + ROUNDS)]
