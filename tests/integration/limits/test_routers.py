"""Two routers of a real mesh that share one Valkey, as a tenant's program sees them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantry.cli import levels
from tenantry.errors import SetupError
from tenantry.operator import OperatorHome
from tenantry_workers.router import RouterWorker
from tenantry_workers.router.limits import shared
from tenantry_workers.tenants import TenantsWorker
from tests import services
from tests.mesh import Mesh, Program, eventually
from tests.servers import NatsServers
from tests.valkey import Valkey

NOTE = {"text": "x"}


@pytest.fixture
def pair(
    nats_backend: NatsServers, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Mesh]:
    """A mesh of one's own with two routers and a service.

    They share one loop and this machine's cores: what is late here is no sign of the store.
    """
    monkeypatch.setattr(shared, "PATIENCE", 0.5)
    mesh = Mesh(nats_backend(OperatorHome.create), tmp_path)
    mesh.start(TenantsWorker(mesh.options()))
    for _ in range(2):
        mesh.start(RouterWorker(dataclasses.replace(mesh.options(), redis=valkey.url)))
    mesh.start(mesh.worker(services.notes))
    yield mesh
    mesh.close()


async def flood(program: Program, count: int) -> list[str]:
    """Ask so often at the same time; the codes of the answers."""
    answers = [program.ask("notes.echo", NOTE) for _ in range(count)]
    return [answer.code for answer in await asyncio.gather(*answers)]


async def test_what_is_left_of_a_burst_is_told_over_both(pair: Mesh) -> None:
    plan = await pair.plan("leveled", rate=0.001, burst=100)
    async with pair.program(plan=plan) as acme, await pair.insider("control") as control:
        before = (await levels.of(control, acme.id))[""]
        await flood(acme, 30)

        async def settled() -> bool:
            return round(before - (await levels.of(control, acme.id))[""]) == 30

        await eventually(settled)


async def test_over_two_routers_a_tenant_gets_one_burst_and_its_rate(pair: Mesh) -> None:
    plan = await pair.plan("shared", rate=20.0, burst=100)
    async with pair.program(plan=plan) as acme:
        await pair.ready(acme, "notes.echo")
        begin, admitted = time.monotonic(), 0
        for _ in range(8):
            admitted += (await flood(acme, 100)).count("")
        elapsed = time.monotonic() - begin
    assert 80 <= admitted <= 100 + 20 * elapsed + 2


async def test_what_is_refused_names_the_limit(pair: Mesh) -> None:
    plan = await pair.plan("shared", rate=0.5, burst=10)
    async with pair.program(plan=plan) as acme:
        refused = None
        while refused is None or not refused.code:
            refused = await acme.ask("notes.echo", NOTE)
    assert refused.headers["RateLimit-Policy"] == '"default";q=10;w=20'
    assert refused.json["violated-policies"] == ["default"]
    # A message takes two seconds, and the other router may have admitted one more.
    assert 0 < refused.json["retry_after"] <= 4.1


async def test_the_order_of_a_tenants_commands_is_kept(pair: Mesh) -> None:
    """By one router: two take turns as NATS likes."""
    await pair.running[2].stop()
    plan = await pair.plan("tight", rate=500.0, burst=20)
    async with pair.program(plan=plan) as acme:
        await pair.ready(acme, "notes.echo")
        sent = []
        for number in range(60):
            sent.append(f"n{number}")
            body = b'{"text":"n%d"}' % number
            await acme.plain.publish(f"tenant.{acme.id}.notes.remember", body)
            await asyncio.sleep(0.004)

        async def arrived() -> bool:
            return bool(await acme.texts())

        await eventually(arrived)
        texts = await acme.texts()
    assert texts == sorted(texts, key=lambda text: int(text[1:]))


async def test_messages_go_on_while_the_store_is_paused(pair: Mesh, valkey: Valkey) -> None:
    async with pair.program() as acme:
        await pair.ready(acme, "notes.echo")
        valkey.pause()
        codes = await flood(acme, 60)
        valkey.resume()
        assert set(codes) == {""}
        assert set(await flood(acme, 20)) == {""}


async def test_one_tenants_waiting_holds_up_nobody_else(pair: Mesh, valkey: Valkey) -> None:
    tight = await pair.plan("tight", rate=0.1, burst=3)
    async with pair.program(plan=tight) as acme, pair.program() as globex:
        await pair.ready(globex, "notes.echo")
        valkey.pause()
        mine, theirs = await asyncio.gather(flood(acme, 20), flood(globex, 20))
        valkey.resume()
    assert "rate_limited" in mine
    assert set(theirs) == {""}


async def test_a_router_whose_store_refuses_it_does_not_start(
    nats_backend: NatsServers, own_mesh: Mesh, tmp_path: Path
) -> None:
    guarded = Valkey(tmp_path, "--requirepass", "s3cret")
    guarded.start()
    try:
        url = guarded.url.replace("redis://", "redis://:Wr0ng@")
        with pytest.raises(SetupError) as caught:
            own_mesh.start(RouterWorker(dataclasses.replace(own_mesh.options(), redis=url)))
    finally:
        guarded.stop()
    assert "Wr0ng" not in str(caught.value)
