"""The commands of one tenant are handled in the journal's order, whatever happens to workers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tenantry import Client, errors
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
        await ctx.state.put("diary", diary)


@service.request("read", public=True)
async def read(ctx: Context) -> Diary:
    """All that was written."""
    found = await ctx.state.get("diary", Diary)
    return found.value if found else Diary()
'''


class Writing:
    """One tenant's commands, and who writes them down."""

    def __init__(self, acme: Client) -> None:
        self.acme = acme

    async def send(self) -> None:
        for index in range(COUNT):
            await self.acme.publish("diary.write", {"number": index})

    async def diary(self) -> dict[str, list[int]]:
        while True:
            try:
                return await self.acme.request("diary.read", timeout=2.0)
            except errors.Rejection:  # it was with the worker that died, or sleeps
                continue

    async def begun(self) -> bool:
        return len((await self.diary())["numbers"]) > COUNT / 8

    async def done(self) -> bool:
        return len((await self.diary())["numbers"]) == COUNT

    async def writer(self) -> int:
        return (await self.diary())["writers"][-1]


@asynccontextmanager
async def writing(folder: Path) -> AsyncIterator[Writing]:
    """Two replicas that write down what one tenant sends."""
    cli = Cli(folder)
    cli.write("diary.py", SERVICE)
    with cli.up("--replicas", "2", "diary:service"):
        cli.ok("tenants", "create", "acme", "--plan", "business")
        creds = folder / "acme.creds"
        async with await Client.connect(cli.running()["url"], creds=creds) as acme:
            yield Writing(acme)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_heir_of_a_worker_goes_on_where_it_ended(number: int, tmp_path: Path) -> None:
    async with writing(tmp_path) as it:
        await it.send()
        await eventually(it.begun)
        os.kill(await it.writer(), number)
        await eventually(it.done, within=60.0, every=0.5)
        diary = await it.diary()
    assert diary["numbers"] == list(range(COUNT))
    assert len(set(diary["writers"])) > 1, json.dumps(diary["writers"])


@pytest.mark.slow
async def test_a_worker_that_wakes_up_after_it_was_replaced_changes_nothing(
    tmp_path: Path,
) -> None:
    async with writing(tmp_path) as it:
        await it.send()
        await eventually(it.begun)
        asleep = await it.writer()
        os.kill(asleep, signal.SIGSTOP)

        async def replaced() -> bool:
            return await it.writer() != asleep

        try:
            await eventually(replaced, within=60.0)
        finally:
            os.kill(asleep, signal.SIGCONT)
        await eventually(it.done, within=60.0, every=0.5)
        diary = await it.diary()
    assert diary["numbers"] == list(range(COUNT))
