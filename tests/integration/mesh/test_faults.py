"""nats-server dies and comes back, routers come and go: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tenantry import errors
from tenantry.bus import Bucket, Bus, Table
from tenantry.messages import VerifyKey
from tenantry_workers.router import RouterWorker
from tests.mesh import Mesh, Program, eventually
from tests.services import Memory, Note

AWAY = 60.0
"""Seconds that a mesh may take to be itself again."""


class Sender:
    """Sends numbered commands, each until it is acknowledged."""

    def __init__(self, program: Program, action: str) -> None:
        self.acknowledged: list[str] = []
        self._program = program
        self._action = action
        self._over = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._over:
            number = str(len(self.acknowledged))
            try:
                await self._program.client.publish(
                    self._action, Note(number), msg_id=number, timeout=2.0
                )
            except errors.Rejection:
                await asyncio.sleep(0.02)
            else:
                self.acknowledged.append(number)
                await asyncio.sleep(0.005)  # a load, not a flood: what is kept grows with it

    async def reach(self, count: int) -> None:
        async def check() -> bool:
            return len(self.acknowledged) >= count

        await eventually(check, within=AWAY, every=0.01)

    async def stop(self) -> list[str]:
        self._over = True
        await self._task
        return self.acknowledged


@pytest.mark.parametrize("away", [0.0, 2.0])
async def test_a_killed_server_loses_no_acknowledged_command(own_mesh: Mesh, away: float) -> None:
    memory = Memory("vault")
    own_mesh.start(own_mesh.worker(memory.service))
    async with own_mesh.program() as acme, own_mesh.program() as globex:
        senders = [Sender(program, "vault.keep") for program in (acme, globex)]
        for sender in senders:
            await sender.reach(50)
        await asyncio.to_thread(own_mesh.backend.kill)
        await asyncio.sleep(away)
        await asyncio.to_thread(own_mesh.backend.start)
        for sender in senders:
            await sender.reach(len(sender.acknowledged) + 50)
        for program, sender in zip((acme, globex), senders, strict=True):
            texts = await sender.stop()
            await eventually(lambda p=program, t=texts: _kept(p, t), within=AWAY)


async def test_a_worker_whose_connection_is_cut_goes_on(mesh: Mesh) -> None:
    memory = Memory("cut_off")
    running = mesh.start(mesh.worker(memory.service))
    async with mesh.neighbours() as (acme, globex), await mesh.insider("sys") as system:
        senders = [Sender(program, "cut_off.keep") for program in (acme, globex)]
        for round_ in range(1, 4):
            for sender in senders:
                await sender.reach(round_ * 30)
            await kick(system, "cut_off/")
        for program, sender in zip((acme, globex), senders, strict=True):
            texts = await sender.stop()
            await eventually(lambda p=program, t=texts: _kept(p, t, "cut_off"), within=AWAY)
    await running.stop()


async def kick(system: Bus, name: str) -> None:
    """Let the server cut the connections of this name (and the rest of it)."""
    answer = await system.call("$SYS.REQ.SERVER.PING.CONNZ", b"{}")
    told = json.loads(answer.data)
    numbers = [
        connection["cid"]
        for connection in told["data"]["connections"]
        if connection.get("name", "").startswith(name)
    ]
    assert numbers
    for number in numbers:
        ask = json.dumps({"cid": number}).encode()
        await system.call(f"$SYS.REQ.SERVER.{told['server']['id']}.KICK", ask)


@pytest.mark.parametrize("who", [("router",), ("service", "notes"), ("control",)], ids=" ".join)
async def test_who_comes_back_can_see_that_it_knows_all_keys(
    mesh: Mesh, who: tuple[str, ...]
) -> None:
    async with await mesh.insider(*who) as bus:
        table = Table(Bucket(bus, "keys", VerifyKey))
        await table.start()
        await table.sync()
        assert table.rows
        await table.stop()


async def test_requests_are_served_again_after_the_server_was_killed(own_mesh: Mesh) -> None:
    own_mesh.start(own_mesh.worker(Memory("vault").service))
    async with own_mesh.program() as acme:
        await own_mesh.ready(acme, "vault.texts")
        await asyncio.to_thread(own_mesh.backend.kill)
        with pytest.raises(errors.Rejection):
            await acme.client.request("vault.texts", timeout=0.5)
        await asyncio.to_thread(own_mesh.backend.start)
        await eventually(lambda: _kept(acme, []), within=AWAY)


async def test_the_control_plane_goes_on_after_the_server_was_restarted(own_mesh: Mesh) -> None:
    own_mesh.start(own_mesh.worker(Memory("vault").service))
    async with own_mesh.program() as acme:
        await asyncio.to_thread(own_mesh.backend.restart)
        await eventually(lambda: _answers(own_mesh), within=AWAY)
        async with own_mesh.program() as globex:
            await own_mesh.ready(globex, "vault.texts")
            await own_mesh.control("suspend", id=acme.id)
            await eventually(lambda: _is(acme, "tenant_suspended"), within=AWAY)
            assert await _is(globex, "")


async def test_a_suspension_outlives_the_server(own_mesh: Mesh) -> None:
    own_mesh.start(own_mesh.worker(Memory("vault").service))
    async with own_mesh.program() as acme:
        await own_mesh.control("suspend", id=acme.id)
        await eventually(lambda: _is(acme, "tenant_suspended"))
        await asyncio.to_thread(own_mesh.backend.kill)
        await asyncio.to_thread(own_mesh.backend.start)
        await eventually(lambda: _is(acme, "tenant_suspended"), within=AWAY)
        await eventually(lambda: _answers(own_mesh), within=AWAY)
        await own_mesh.control("resume", id=acme.id)
        await eventually(lambda: _is(acme, ""), within=AWAY)


async def test_a_router_that_starts_anew_knows_who_is_suspended(own_mesh: Mesh) -> None:
    own_mesh.start(own_mesh.worker(Memory("vault").service))
    async with own_mesh.program() as acme, own_mesh.program() as globex:
        await own_mesh.control("suspend", id=acme.id)
        await eventually(lambda: _is(acme, "tenant_suspended"))
        new = await asyncio.to_thread(own_mesh.start, RouterWorker(own_mesh.options()))
        await own_mesh.running[1].stop()
        assert await _is(acme, "tenant_suspended")
        assert await _is(globex, "")
        await new.stop()


async def test_no_request_fails_while_routers_are_replaced(own_mesh: Mesh) -> None:
    own_mesh.start(own_mesh.worker(Memory("vault").service))
    async with own_mesh.program() as acme:
        await own_mesh.ready(acme, "vault.texts")
        sender = Sender(acme, "vault.keep")
        over, asked = asyncio.Event(), 0

        async def ask() -> None:
            nonlocal asked
            while not over.is_set():
                await acme.client.request("vault.texts")
                asked += 1

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        router = own_mesh.running[1]
        for _ in range(3):
            new = await asyncio.to_thread(own_mesh.start, RouterWorker(own_mesh.options()))
            await router.stop()
            router = new
        over.set()
        await asyncio.gather(*asking)
        assert asked > 50
        texts = await sender.stop()
        await eventually(lambda: _kept(acme, texts))


async def test_without_a_router_the_asker_knows_at_once(own_mesh: Mesh) -> None:
    async with own_mesh.program() as acme:
        await own_mesh.running[1].stop()
        began = time.monotonic()
        with pytest.raises(errors.Unavailable):
            await acme.client.request("vault.texts", timeout=60)
        assert time.monotonic() - began < 30


async def _kept(program: Program, texts: list[str], service: str = "vault") -> bool:
    try:
        answer = await program.client.request(f"{service}.texts", timeout=2.0)
    except errors.Rejection:
        return False
    return list(answer["texts"]) == texts


async def _answers(mesh: Mesh) -> bool:
    try:
        await mesh.control("plans")
    except errors.Rejection:
        return False
    return True


async def _is(program: Program, code: str) -> bool:
    try:
        await program.client.request("vault.texts", timeout=2.0)
    except errors.Rejection as rejection:
        return rejection.code == code
    return not code
