"""Connections of a tenant's programs: the newest over the plan are ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client as NatsClient

from tenantry.bus import Bus
from tenantry_workers.tenants import TenantsWorker
from tests.integration.mesh.test_credentials import issue
from tests.mesh import PATIENCE, Mesh, eventually, journal


class Programs:
    """Connections that do not come back, in the order in which they were opened."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.opened: list[NatsClient] = []

    async def open(self, creds: Path, count: int = 1) -> list[NatsClient]:
        found = [await self._open(creds) for _ in range(count)]
        self.opened += found
        return found

    async def _open(self, creds: Path) -> NatsClient:
        async def on_error(_error: Exception) -> None:
            pass

        plain = NatsClient()
        try:
            await plain.connect(
                self._mesh.url,
                user_credentials=str(creds),
                allow_reconnect=False,
                error_cb=on_error,
            )
        except (OSError, nats.errors.Error):
            await plain.close()  # ended before it was quite there
        return plain

    async def close(self) -> None:
        for plain in self.opened:
            await plain.close()


@pytest.fixture
async def programs(mesh: Mesh) -> AsyncIterator[Programs]:
    programs = Programs(mesh)
    yield programs
    await programs.close()


async def bounded(mesh: Mesh, connections: int, **fields: object) -> Path:
    """Credentials of a tenant that may have so many connections."""
    name = f"joined_{time.monotonic_ns()}"
    plan = {"name": name, "rate": 1e4, "burst": 10_000, "connections": connections} | fields
    await mesh.control("apply_plans", plans=[plan])
    return await mesh.tenant(plan=name)


def open_ones(clients: list[NatsClient]) -> list[bool]:
    return [not client.is_closed for client in clients]


async def settles(clients: list[NatsClient], expected: list[bool]) -> None:
    async def as_expected() -> bool:
        return open_ones(clients) == expected

    await eventually(as_expected)


async def test_as_many_as_the_plan_says_stay(mesh: Mesh, programs: Programs) -> None:
    full, over = await bounded(mesh, 2), await bounded(mesh, 1)
    first = await programs.open(full, 2)
    await settles(await programs.open(over, 2), [True, False])  # so it was looked at
    assert open_ones(first) == [True, True]


async def test_the_newest_over_the_plan_is_ended(mesh: Mesh, programs: Programs) -> None:
    creds = await bounded(mesh, 2)
    await settles(await programs.open(creds, 4), [True, True, False, False])


async def test_credentials_of_one_tenant_count_together(mesh: Mesh, programs: Programs) -> None:
    creds = await bounded(mesh, 1)
    first = await programs.open(creds)
    other = await programs.open(await issue(mesh, creds.stem))
    await settles(first + other, [True, False])


async def test_one_that_leaves_makes_room(mesh: Mesh, programs: Programs) -> None:
    creds = await bounded(mesh, 1)
    first, second = await programs.open(creds, 2)
    await settles([first, second], [True, False])
    await first.close()

    pair = await programs.open(creds, 2)

    async def one_stays() -> bool:
        return sum(open_ones(pair)) == 1

    await eventually(one_stays)


async def test_another_tenant_of_the_plan_has_its_own(mesh: Mesh, programs: Programs) -> None:
    creds = await bounded(mesh, 1)
    plan = (await mesh.control("show", id=creds.stem))["plan"]
    other = await programs.open(await mesh.tenant(plan=plan))
    await settles(await programs.open(creds, 2), [True, False])
    assert open_ones(other) == [True]


async def test_without_a_bound_there_is_none(mesh: Mesh, programs: Programs) -> None:
    free = await programs.open(await bounded(mesh, 0), 20)
    await settles(await programs.open(await bounded(mesh, 1), 2), [True, False])
    assert open_ones(free) == [True] * 20


async def test_a_bound_ends_what_is_open_already(mesh: Mesh, programs: Programs) -> None:
    creds = await bounded(mesh, 0)
    clients = await programs.open(creds, 3)
    await mesh.control("override", id=creds.stem, override={"connections": 2})
    await settles(clients, [True, True, False])


async def test_hundreds_are_counted(mesh: Mesh, programs: Programs) -> None:
    creds = await bounded(mesh, 0)
    clients = await programs.open(creds, 270)  # more than a page
    await mesh.control("override", id=creds.stem, override={"connections": 265})
    await settles(clients, [True] * 265 + [False] * 5)


async def test_the_tenant_hears_of_it(mesh: Mesh, programs: Programs, control: Bus) -> None:
    creds = await bounded(mesh, 1)
    await settles(await programs.open(creds, 2), [True, False])

    async def told() -> bool:
        return [
            (event["quota"], event["limit"], event["used"])
            async for event in _exhausted(control, creds.stem)
        ] == [("connections", 1, 2)]

    await eventually(told)


async def _exhausted(control: Bus, tenant: str) -> AsyncIterator[dict[str, object]]:
    for entry in await journal(control, tenant, "tenants.quota_exhausted"):
        yield json.loads(entry.data)


@pytest.fixture
async def own_programs(own_mesh: Mesh) -> AsyncIterator[Programs]:
    programs = Programs(own_mesh)
    yield programs
    await programs.close()


async def test_it_holds_over_a_restart_of_the_worker(
    own_mesh: Mesh, own_programs: Programs
) -> None:
    creds = await bounded(own_mesh, 2)
    first = await own_programs.open(creds, 2)
    await own_mesh.running[0].stop()
    later = await own_programs.open(creds, 2)
    for _ in range(2):  # two replicas come to the same
        own_mesh.start(TenantsWorker(own_mesh.options()))
    await settles(first + later, [True, True, False, False])


@pytest.mark.parametrize("ending", ["restart", "kill"])
async def test_it_holds_over_a_restart_of_the_server(
    own_mesh: Mesh, own_programs: Programs, ending: str
) -> None:
    creds = await bounded(own_mesh, 2)
    await settles(await own_programs.open(creds, 3), [True, True, False])
    await asyncio.to_thread(own_mesh.backend.kill if ending == "kill" else own_mesh.backend.stop)
    await asyncio.to_thread(own_mesh.backend.start)
    await settles(await own_programs.open(creds, 3), [True, True, False])
    await asyncio.wait_for(own_programs.opened[-2].flush(), PATIENCE)
