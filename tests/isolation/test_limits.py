"""What one tenant uses of its limits is not taken from another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from tenantry import errors
from tenantry.bus import Bucket, Bus
from tenantry.messages import Quota, Tallies, Usage
from tenantry.operator import OperatorHome
from tenantry_workers.router import RouterWorker
from tenantry_workers.router.limits.store import key
from tenantry_workers.tenants import TenantsWorker
from tests import services
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually
from tests.servers import NatsServers
from tests.valkey import Valkey


async def codes(program: Program, count: int) -> list[str]:
    """What so many requests at once are answered."""
    asks = (program.ask("notes.echo", {"text": ""}) for _ in range(count))
    return [each.code for each in await asyncio.gather(*asks)]


@pytest.fixture
async def tight(mesh: Mesh) -> str:
    """A plan with a small rate."""
    return await mesh.plan("tight", rate=0.01, burst=20)


@pytest.fixture
async def counted(mesh: Mesh) -> str:
    """A plan with a small quota."""
    quota = Quota(amount=5, period="day")
    return await mesh.plan("counted", rate=1e4, burst=10_000, quotas=(quota,))


@cannot(68, Layer.ROUTER)
async def test_a_rate_that_one_has_used_up_is_left_to_another_of_the_same_plan(
    mesh: Mesh, tight: str
) -> None:
    async with mesh.program(plan=tight) as one, mesh.program(plan=tight) as two:
        assert "rate_limited" in await codes(one, 30)
        assert "rate_limited" not in await codes(two, 10)


@can(68)
async def test_a_tenant_uses_up_its_own_rate(mesh: Mesh, tight: str) -> None:
    async with mesh.program(plan=tight) as one:
        answers = await codes(one, 30)
        assert answers.count("") >= 10
        assert "rate_limited" in answers


@cannot(68, Layer.ROUTER)
async def test_a_quota_that_one_has_used_up_is_left_to_another_of_the_same_plan(
    mesh: Mesh, counted: str, control: Bus
) -> None:
    async with mesh.program(plan=counted) as one, mesh.program(plan=counted) as two:
        assert "quota_exceeded" in await codes(one, 10)
        assert (await codes(two, 1)) == [""]
        usage = await Bucket(control, "usage", Usage).get(one.id)
        assert usage is not None


@cannot(68, Layer.ROUTER)
async def test_a_flood_of_strangers_uses_up_nobodys_rate(mesh: Mesh, tight: str) -> None:
    async with AsyncExitStack() as stack:
        ghosts = [await stack.enter_async_context(mesh.ghost()) for _ in range(3)]
        one = await stack.enter_async_context(mesh.program(plan=tight))
        for ghost in ghosts:
            for _ in range(200):
                await ghost.plain.publish(f"tenant.{ghost.id}.notes.echo", b"{}")
            await ghost.plain.flush()
        assert "rate_limited" not in await codes(one, 10)


# counted in Valkey


@cannot(67, Layer.STORE)
@cannot(68, Layer.ROUTER)
async def test_what_routers_share_in_valkey_is_apart_by_tenant(
    nats_backend: NatsServers, tmp_path: Path, valkey: Valkey, request: pytest.FixtureRequest
) -> None:
    mesh = Mesh(nats_backend(OperatorHome.create), tmp_path)
    request.addfinalizer(mesh.close)
    mesh.start(TenantsWorker(mesh.options()))
    mesh.start(RouterWorker(replace(mesh.options(), redis=valkey.url)))
    mesh.start(mesh.worker(services.notes))
    plan = await mesh.plan("tight", rate=0.01, burst=20)
    async with (
        mesh.program("shared", plan=plan) as one,
        mesh.program("shared-too", plan=plan) as two,
        Redis.from_url(valkey.url) as redis,
    ):
        assert "rate_limited" in await codes(one, 30)
        assert "rate_limited" not in await codes(two, 10)

        async def both() -> bool:
            return len(await redis.keys("*")) == 2

        await eventually(both)
        names = {name.decode() for name in await redis.keys("*")}
        assert names == {key(each.id, "default") for each in (one, two)}


# figures


@cannot(69, Layer.SERVER)
async def test_a_service_asks_nobody_for_figures_of_tenants(insider: Bus) -> None:
    with pytest.raises(errors.NotAllowed):
        await insider.call("stats.tenants", b"{}")


@cannot(69, Layer.ROUTER)
async def test_what_one_tenant_does_is_in_no_others_figures(
    acme: Program, globex: Program, control: Bus
) -> None:
    before = await handled(control, globex.id)
    await codes(acme, 5)
    assert await handled(control, globex.id) == before


@can(69)
async def test_what_a_tenant_does_is_in_its_own_figures(acme: Program, control: Bus) -> None:
    before = await handled(control, acme.id)
    await codes(acme, 5)
    assert await handled(control, acme.id) == {
        name: before.get(name, 0) + 5 for name in ("router", "notes")
    }


async def handled(control: Bus, tenant: str) -> dict[str, int]:
    """How many messages of a tenant each service and router has counted."""
    ask = msgspec.json.encode({"tenants": [tenant]})
    answers = await control.gather("stats.tenants", ask, wait=0.3)
    found = [msgspec.json.decode(each.data, type=Tallies) for each in answers]
    assert {row.tenant for each in found for row in each.tenants} <= {tenant}
    return {each.service: each.tenants[0].handled for each in found if each.tenants}
