"""kill -9 of every kind of process under load: what was acknowledged has its effect, once."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tenantry.demo.checks import Books
from tenantry.demo.shopper import Shopper
from tenantry.local.state import StateFolder
from tests.acceptance.cli import SHOP, Cli
from tests.mesh import eventually

SECONDS = 4.0


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["router", "orders", "ledger", "tenants", "nats-server"])
async def test_acknowledged_commands_outlive_a_kill_of(victim: str, tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    with cli.up(*SHOP):
        state = StateFolder(tmp_path / ".tenantry")
        cli.ok("tenants", "create", "acme", "--plan", "business")
        creds = tmp_path / "acme.creds"
        shopper = Shopper("acme", creds, cli.running()["url"], rate=40, imports=20)
        await shopper.connect()
        await asyncio.gather(shopper.shop(SECONDS), _kill(state, victim, SECONDS / 2))
        tally = shopper.tally
        assert tally.stored > 0

        async def settled() -> bool:
            try:
                books = Books.read(*await shopper.sold())
            except Exception:  # noqa: BLE001  (asked again until the end)
                return False
            return books is not None and books.imported >= tally.stored

        await eventually(settled, within=60.0, every=0.5)
        books = Books.read(*await shopper.sold())
        await shopper.close()
    assert books is not None
    assert books.imported <= tally.stored + tally.unsure


async def _kill(state: StateFolder, name: str, after: float) -> None:
    await asyncio.sleep(after)
    running = state.running()
    assert running is not None
    pid = next(child.pid for child in running.children if child.name == name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
