"""The commands of one tenant are handled in the journal's order, whatever happens to workers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tenantry import Client, errors
from tenantry.control import Control
from tenantry.local.state import StateFolder
from tests.acceptance.cli import Cli
from tests.mesh import eventually

COUNT = 400
SERVICE = '''
import asyncio
import os

from msgspec import Struct

from tenantry import Context, Service

service = Service("diary", version="1.0.0")


class Entry(Struct):
    number: int


class Diary(Struct):
    numbers: list[int] = []
    writers: list[int] = []


@service.command("write", public=True)
async def write(ctx: Context, entry: Entry) -> None:
    """Write a number down, once."""
    found = await ctx.state.get("diary", Diary)
    diary = found.value if found else Diary()
    await asyncio.sleep(0.01)
    if entry.number not in diary.numbers:
        diary.numbers.append(entry.number)
        diary.writers.append(os.getpid())
        if found:
            await ctx.state.update("diary", diary, found.revision)
        else:
            await ctx.state.create("diary", diary)


@service.request("read", public=True)
async def read(ctx: Context) -> Diary:
    """All that was written."""
    found = await ctx.state.get("diary", Diary)
    return found.value if found else Diary()
'''


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_heir_of_a_worker_goes_on_where_it_ended(number: int, tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.write("diary.py", SERVICE)
    with cli.up("--replicas", "2", "diary:service"):
        state = StateFolder(tmp_path / ".tenantry")
        running = state.running()
        assert running is not None
        control = state.operator / "creds" / "control.creds"
        async with await Control.connect(running.url, creds=control) as ctl:
            _, text = await ctl.create("acme", plan="business")
        creds = cli.write("acme.creds", text)
        async with await Client.connect(running.url, creds=creds) as acme:
            for index in range(COUNT):
                await acme.publish("diary.write", {"number": index})

            async def written() -> int:
                try:
                    return len((await acme.request("diary.read", timeout=2.0))["numbers"])
                except errors.Rejection:  # it was with the worker that died
                    return 0

            async def begun() -> bool:
                return await written() > COUNT / 8

            async def done() -> bool:
                return await written() == COUNT

            await eventually(begun)
            writer = (await acme.request("diary.read"))["writers"][-1]
            os.kill(writer, number)
            await eventually(done, within=60.0, every=0.5)
            diary = await acme.request("diary.read")
    assert diary["numbers"] == list(range(COUNT))
    assert len(set(diary["writers"])) > 1, json.dumps(diary["writers"])
