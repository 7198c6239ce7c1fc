"""A partition moves to another instance while its former owner lives, whatever it was doing."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from tenantry import Context, Service
from tenantry.bus import Bus, store
from tenantry.delivery import timing
from tenantry.delivery.checkpoints import Checkpoints
from tests.integration.mesh.counting import Owners
from tests.mesh import Mesh, Program, eventually
from tests.services import Note

TENANTS = [f"moving-{number}" for number in range(60)]


class Stubborn:
    """A service whose handler does not end when it is told to, until it is let go."""

    def __init__(self, name: str, *, timeout: float = 0.3) -> None:
        self.service = Service(name, version="1.0.0")
        self.service.command("do", public=True, timeout=timeout)(self.do)
        self.service.request("echo", public=True)(self.echo)
        self.began = 0
        self.over = asyncio.Event()

    async def do(self, _ctx: Context, _note: Note) -> None:
        """Ignore every end."""
        self.began += 1
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                continue

    async def echo(self, _ctx: Context, note: Note) -> Note:
        """Answer with the same."""
        return note


async def send(mesh: Mesh, bus: Bus, action: str, tenants: list[str]) -> None:
    """A command of each tenant, past the router."""
    minter = mesh.minter()
    for tenant in tenants:
        token = minter.mint(tenant, "business", "test")
        subject = f"tenant.{tenant}.{action}"
        await store(bus, subject, b'{"text": "x"}', headers={"Tenant-Context": token})


async def test_what_was_cut_off_does_not_keep_a_partition_from_the_next_owner(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    one, two = Stubborn("stubborn_owner"), Stubborn("stubborn_owner")
    two.over.set()
    owners = Owners(control, "stubborn_owner")
    first = mesh.start(mesh.worker(one.service))
    await mesh.ready(acme, "stubborn_owner.echo")
    await owners.shared(1)
    await send(mesh, control, "stubborn_owner.do", TENANTS)

    async def begun(each: Stubborn) -> bool:
        return each.began > 0

    await eventually(partial(begun, one))
    second = mesh.start(mesh.worker(two.service))
    await owners.shared(2)
    await eventually(partial(begun, two))
    await mesh.set(one.over)
    await first.stop()
    await second.stop()


async def test_a_server_that_is_away_does_not_keep_a_partition_from_the_next_owner(
    own_mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, save = 0, Checkpoints.save

    async def counted(*args: Any) -> int:
        nonlocal tried
        tried += 1
        return await save(*args)

    monkeypatch.setattr(timing, "CALL", 0.2)
    monkeypatch.setattr(Checkpoints, "save", counted)
    one, two = Stubborn("away_owner", timeout=60.0), Stubborn("away_owner")
    two.over.set()
    async with own_mesh.program() as acme, await own_mesh.insider("root") as control:
        owners = Owners(control, "away_owner")
        first = own_mesh.start(own_mesh.worker(one.service))
        await own_mesh.ready(acme, "away_owner.echo")
        await owners.shared(1)
        await send(own_mesh, control, "away_owner.do", TENANTS[:8])

        async def begun() -> bool:
            return one.began == 8

        await eventually(begun)
        second = own_mesh.start(own_mesh.worker(two.service))

        async def moves() -> bool:
            return len(set(await owners.owners())) == 2

        await eventually(moves)  # those where nothing runs; the others wait for what does
        await asyncio.to_thread(own_mesh.backend.kill)
        before = tried
        await own_mesh.set(one.over)

        async def fails() -> bool:
            return tried > before + 24  # three times for each of the eight

        await eventually(fails, within=60.0)
        await asyncio.to_thread(own_mesh.backend.start)

        async def shared() -> bool:
            try:
                await owners.shared(2)
            except Exception:  # noqa: BLE001  (the connection may not be back yet)
                return False
            return True

        await eventually(shared, within=60.0)
        await first.stop()
        await second.stop()
