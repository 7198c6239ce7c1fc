"""The replicas of a service share its work, and hand it over when one comes or goes."""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict

from tenantry.bus import Bus, store
from tests.mesh import Mesh, Program, Running, eventually
from tests.services import Memory

TENANTS = [f"lane-{number}" for number in range(24)]


class Replicas:
    """Several workers of one service, each of which knows what it has handled."""

    def __init__(self, mesh: Mesh, name: str, **options: int) -> None:
        self._mesh = mesh
        self._name = name
        self._options = options
        self.memories: list[Memory] = []
        self.running: list[Running] = []

    def add(self) -> Memory:
        memory = Memory(self._name, **self._options)
        self.memories.append(memory)
        self.running.append(self._mesh.start(self._mesh.worker(memory.service)))
        return memory

    async def stop(self) -> None:
        for running in self.running:
            await running.stop()

    def by_tenant(self) -> dict[str, list[str]]:
        """What all of them have handled, in order."""
        all_of_them = (zip(m.times, m.handled, strict=True) for m in self.memories)
        texts = defaultdict(list)
        for _, (tenant, text) in heapq.merge(*all_of_them):
            texts[tenant].append(text)
        return dict(texts)

    async def have(self, count: int) -> bool:
        """Whether so many were handled; one may come twice, as a busy machine acknowledges late."""
        return len({each for memory in self.memories for each in memory.handled}) >= count


async def send(mesh: Mesh, insider: Bus, name: str, numbers: range) -> None:
    """A command of each number for every tenant, past the router."""
    minter = mesh.minter()
    tokens = {tenant: minter.mint(tenant, "business", "test") for tenant in TENANTS}
    for number in numbers:
        await asyncio.gather(
            *(
                store(
                    insider,
                    f"tenant.{tenant}.{name}.keep",
                    b'{"text": "%d"}' % number,
                    headers={"Tenant-Context": tokens[tenant]},
                )
                for tenant in TENANTS
            )
        )


async def test_two_replicas_share_the_requests(mesh: Mesh, acme: Program) -> None:
    replicas = Replicas(mesh, "shared")
    for _ in range(2):
        replicas.add()
    await mesh.ready(acme, "shared.texts")
    for _ in range(60):
        await acme.ask("shared.texts", b"")
    counts = []
    for running in replicas.running:
        counts.append(running)
    async with await mesh.insider("control") as control:
        import msgspec

        answers = await control.gather("$SRV.STATS.shared")
        stats = [msgspec.json.decode(answer.data) for answer in answers]
    numbers = [
        endpoint["num_requests"]
        for one in stats
        for endpoint in one["endpoints"]
        if endpoint["name"] == "texts"
    ]
    assert len(numbers) == 2
    assert min(numbers) > 0
    await replicas.stop()


async def test_two_replicas_share_the_lanes(mesh: Mesh, insider: Bus) -> None:
    replicas = Replicas(mesh, "split")
    first, second = replicas.add(), replicas.add()
    # One that has just begun hears of the other within a heartbeat.
    await send(mesh, insider, "split", range(1))
    await eventually(lambda: replicas.have(len(TENANTS)))
    await send(mesh, insider, "split", range(1, 5))
    await eventually(lambda: replicas.have(len(TENANTS) * 5))
    assert first.handled
    assert second.handled
    await replicas.stop()


async def test_a_tenant_is_with_one_replica_at_a_time(mesh: Mesh, insider: Bus) -> None:
    replicas = Replicas(mesh, "sticky")
    first, second = replicas.add(), replicas.add()
    await send(mesh, insider, "sticky", range(2))
    await eventually(lambda: replicas.have(len(TENANTS) * 2))
    await asyncio.sleep(1.5)  # until both have heard of each other and have settled
    for memory in (first, second):
        memory.handled.clear()
        memory.times.clear()
    await send(mesh, insider, "sticky", range(2, 6))
    await eventually(lambda: replicas.have(len(TENANTS) * 4))
    mine, theirs = ({tenant for tenant, _ in memory.handled} for memory in (first, second))
    assert mine | theirs == set(TENANTS)
    assert not mine & theirs
    await replicas.stop()


async def test_a_replica_that_stops_hands_its_lanes_over(mesh: Mesh, insider: Bus) -> None:
    replicas = Replicas(mesh, "handed")
    replicas.add()
    replicas.add()
    sending = asyncio.create_task(send(mesh, insider, "handed", range(40)))
    await eventually(lambda: replicas.have(len(TENANTS) * 5), every=0.01)
    await replicas.running[0].stop()
    await sending
    await eventually(lambda: replicas.have(len(TENANTS) * 40))
    await _all_once_in_order(replicas, 40)
    await replicas.stop()


async def test_a_replica_that_comes_takes_lanes_over(mesh: Mesh, insider: Bus) -> None:
    replicas = Replicas(mesh, "joined")
    replicas.add()
    sending = asyncio.create_task(send(mesh, insider, "joined", range(40)))
    await eventually(lambda: replicas.have(len(TENANTS) * 5), every=0.01)
    late = await asyncio.to_thread(replicas.add)
    await sending
    await send(mesh, insider, "joined", range(40, 50))
    await eventually(lambda: replicas.have(len(TENANTS) * 50))
    await _all_once_in_order(replicas, 50)
    assert late.handled
    await replicas.stop()


async def test_replicas_that_come_and_go_lose_nothing(mesh: Mesh, insider: Bus) -> None:
    replicas = Replicas(mesh, "shaken")
    replicas.add()
    sending = asyncio.create_task(send(mesh, insider, "shaken", range(80)))
    for index in range(3):
        await asyncio.to_thread(replicas.add)
        await replicas.running[index].stop()
    await sending
    await eventually(lambda: replicas.have(len(TENANTS) * 80))
    await _all_once_in_order(replicas, 80)
    await replicas.stop()


async def test_more_replicas_than_lanes_are_no_harm(mesh: Mesh, insider: Bus) -> None:
    replicas = Replicas(mesh, "crowded")
    for _ in range(3):
        replicas.add()
    await send(mesh, insider, "crowded", range(3))
    await eventually(lambda: replicas.have(len(TENANTS) * 3))
    await _all_once_in_order(replicas, 3)
    await replicas.stop()


async def _all_once_in_order(replicas: Replicas, count: int) -> None:
    """Each tenant's messages were handled once, and in the order of the journal."""
    expected = [str(number) for number in range(count)]
    for texts in replicas.by_tenant().values():
        assert texts == expected
