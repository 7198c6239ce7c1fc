"""Every process is replaced while tenants go on: they notice nothing, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tenantry import Client, errors
from tenantry.operator import OperatorHome
from tests.acceptance.fleet import Fleet, fleet
from tests.mesh import eventually
from tests.servers import NatsServers

TENANTS = ("acme", "bolt", "crux", "dune")
PACE = 0.02
"""Between two requests, and two commands, of one client, seconds."""

GREETERS = 4
"""Requests under way of one tenant."""

DIARY = '''
import asyncio

from msgspec import Struct

from tenantry import Context, Service

service = Service("diary", version="1.0.0")


class Entry(Struct):
    number: int


class Diary(Struct):
    numbers: list[int] = []


@service.command("write", public=True)
async def write(ctx: Context, entry: Entry) -> None:
    """Write a number down."""
    found = await ctx.state.get("diary", Diary)
    diary = found.value if found else Diary()
    await asyncio.sleep(0.005)
    diary.numbers.append(entry.number)
    await ctx.state.put("diary", diary)


@service.request("greet", public=True)
async def greet(ctx: Context) -> str:
    """Ask another service for the words."""
    return await ctx.request("desk.word", {}, type=str)


@service.request("read", public=True)
async def read(ctx: Context) -> Diary:
    """All that was written, in the order in which it was."""
    found = await ctx.state.get("diary", Diary)
    return found.value if found else Diary()
'''

DESK = '''
import asyncio

from tenantry import Context, Service

service = Service("desk", version="1.0.0")


@service.request("word")
async def word(ctx: Context) -> str:
    """Take a moment to answer."""
    await asyncio.sleep(0.005)
    return "hello"
'''


class Customer:
    """One tenant's steady load."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.stop = asyncio.Event()
        self.stored = 0
        self.answered = 0
        self.refused: Counter[str] = Counter()
        """What was met with something else than an answer or the journal's PubAck."""
        self.written: list[int] = []
        """What the service has written down, once the load has ended."""

    async def write(self) -> None:
        """Send commands until told to stop."""
        while not self.stop.is_set():
            try:
                await self.client.publish("diary.write", {"number": self.stored})
            except errors.Rejection as rejection:
                self.refused[f"write: {rejection}"] += 1
            else:
                self.stored += 1
            await asyncio.sleep(PACE)

    async def greet(self) -> None:
        """Ask until told to stop."""
        while not self.stop.is_set():
            try:
                await self.client.request("diary.greet", timeout=5.0)
            except errors.Rejection as rejection:
                self.refused[f"greet: {rejection}"] += 1
            else:
                self.answered += 1
            await asyncio.sleep(PACE)

    async def settled(self) -> bool:
        """Whether all that was stored has been written down."""
        self.written = list((await self.client.request("diary.read"))["numbers"])
        return len(self.written) >= self.stored


@asynccontextmanager
async def customers(deployment: Fleet, names: tuple[str, ...]) -> AsyncIterator[list[Customer]]:
    """New tenants that send and ask as long as the block runs."""
    async with AsyncExitStack() as stack:
        found = []
        for name in names:
            client = await stack.enter_async_context(await deployment.customer(name))
            found.append(Customer(client))
        for each in found:
            await eventually(partial(_served, each))
        async with asyncio.TaskGroup() as group:
            for each in found:
                group.create_task(each.write())
                for _ in range(GREETERS):
                    group.create_task(each.greet())
            try:
                yield found
            finally:
                for each in found:
                    each.stop.set()
        for each in found:
            await eventually(each.settled, within=60.0, every=0.2)


async def _served(customer: Customer) -> bool:
    try:
        await customer.client.request("diary.greet")
    except errors.Rejection:
        return False
    return True


@pytest.mark.slow
async def test_replacing_every_process_under_load_fails_nothing(
    nats_backend: NatsServers, tmp_path: Path
) -> None:
    async with fleet(nats_backend(OperatorHome.create), tmp_path) as deployment:
        deployment.write("diary", DIARY)
        deployment.write("desk", DESK)
        for target in ("router", "desk:service", "diary:service", "diary:service"):
            await deployment.start(target)
        async with customers(deployment, TENANTS) as load:
            for process in list(deployment.running):
                await deployment.replace(process)
    assert not sum((each.refused for each in load), Counter())
    assert min(each.answered for each in load) > 100
    assert [each.written for each in load] == [list(range(each.stored)) for each in load]


@pytest.mark.slow
async def test_a_new_version_and_the_way_back_under_load_fail_nothing(
    nats_backend: NatsServers, tmp_path: Path
) -> None:
    async with fleet(nats_backend(OperatorHome.create), tmp_path) as deployment:
        newer = DIARY.replace("1.0.0", "1.1.0").replace(
            '@service.command("write", public=True)',
            '@service.command("erase")\n@service.command("write", public=True, timeout=5.0)',
        )
        deployment.write("diary", DIARY)
        deployment.write("diary_newer", newer)
        deployment.write("desk", DESK)
        for target in ("router", "desk:service"):
            await deployment.start(target)
        old = await deployment.start("diary:service")
        async with customers(deployment, TENANTS) as load:
            new = await deployment.replace(old, "diary_newer:service")
            await deployment.replace(new, "diary:service")
    assert not sum((each.refused for each in load), Counter())
    assert [each.written for each in load] == [list(range(each.stored)) for each in load]
