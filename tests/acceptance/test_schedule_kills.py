"""kill -9 while commands for later fall due: each is sent, once, in the order of their times."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.cli import Cli, Inside, soon

COUNT = 200
SPAN = 4.0
"""Over so many seconds they fall due."""

PATIENCE = 60.0

KEEPER = """
from msgspec import Struct
from tenantry import Context, Service

class Number(Struct):
    number: int

class Plan(Struct):
    count: int
    begin: float
    span: float

class Seen(Struct):
    numbers: list[int] = []
    ids: list[str] = []

service = Service("keeper")

@service.request("plan", public=True)
async def plan(ctx: Context, ask: Plan) -> None:
    for number in reversed(range(ask.count)):
        at = ask.begin + ask.span * number / ask.count
        ctx.send("keeper.keep", Number(number), at=at)

@service.command("keep")
async def keep(ctx: Context, ask: Number) -> None:
    entry = await ctx.state.get("seen", Seen)
    seen = entry.value if entry else Seen()
    if ctx.message_id in seen.ids:  # handled before the kill, and not acknowledged
        return
    seen = Seen([*seen.numbers, ask.number], [*seen.ids, ctx.message_id])
    if entry is None:
        await ctx.state.create("seen", seen)
    else:
        await ctx.state.update("seen", seen, entry.revision)

@service.request("seen", public=True)
async def seen(ctx: Context) -> list[int]:
    entry = await ctx.state.get("seen", Seen)
    return entry.value.numbers if entry else []
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["tenants", "nats-server", "keeper"])
def test_what_falls_due_outlives_a_kill_of(victim: str, tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.write("keeper.py", KEEPER)
    with cli.up("keeper:service"):
        inside = Inside(tmp_path)
        inside.ok("tenants", "create", "acme", "--plan", "business")
        begin = time.time() + 1.0
        body = f'{{"count": {COUNT}, "begin": {begin}, "span": {SPAN}}}'
        inside.ok("request", "acme", "keeper.plan", body)
        time.sleep(max(0.0, begin + SPAN / 2 - time.time()))
        os.kill(cli.child(victim)["pid"], signal.SIGKILL)
        soon(lambda: len(_seen(inside)) >= COUNT, PATIENCE)
        assert _seen(inside) == list(range(COUNT))
        soon(lambda: inside.ok("schedules", "list", "-o", "json").json == [])


def _seen(cli: Cli) -> list[int]:
    done = cli("request", "acme", "keeper.seen", "--timeout", "2")
    return list(done.json) if done.code == 0 else []
