"""A service in processes of its own, which die, stop and hang as its commands say.

Each run of a handler leaves a line in a file, so what ran is known also of those that died.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tenantry.bus import Bus
from tests.acceptance.fleet import Fleet, Process
from tests.integration.mesh.counting import Owners
from tests.mesh import Mesh, Program, eventually, journal

PROBE = '''
import asyncio
import os
import signal
import time

from msgspec import Struct

from tenantry import Context, Retry, Service

service = Service("NAME", version="1.0.0", retry=Retry(tries=1))


class Entry(Struct):
    number: int
    act: str = ""


class Count(Struct):
    numbers: list[int] = []


counted = service.event("counted", str)
log = os.open("runs.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)


def ran(ctx: Context, kind: str, entry: Entry) -> None:
    os.write(log, f"{os.getpid()} {kind} {ctx.tenant} {entry.number} {ctx.attempt}\\n".encode())


@service.command("count", public=True, timeout=60.0)
async def count(ctx: Context, entry: Entry) -> None:
    """Count, and do to the process what is asked for."""
    ran(ctx, "count", entry)
    found = await ctx.state.get("count", Count)
    if entry.act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if entry.act == "block":
        time.sleep(7)
    await asyncio.sleep(2 if entry.act == "wait" else 0.002)
    numbers = found.value.numbers if found else []
    await ctx.state.put("count", Count([*numbers, entry.number]))
    ctx.emit(counted, str(entry.number))


@service.command("note", public=True)
async def note(ctx: Context, entry: Entry) -> None:
    """Nothing but the line in the file."""
    ran(ctx, "note", entry)


@service.request("read", public=True)
async def read(ctx: Context) -> Count:
    """All that was counted, in order."""
    found = await ctx.state.get("count", Count)
    return found.value if found else Count()
'''


class Run(NamedTuple):
    """One run of a handler."""

    pid: int
    kind: str
    tenant: str
    number: int
    attempt: int


class Probe:
    """The processes of one service, and what ran in them."""

    def __init__(self, mesh: Mesh, folder: Path, name: str, control: Bus) -> None:
        self.name = name
        self.owners = Owners(control, name)
        self.fleet = Fleet(mesh.backend, folder)
        self.fleet.write("probe", PROBE.replace("NAME", name))
        self._control = control
        self._folder = folder

    async def start(self) -> Process:
        """One more process."""
        return await self.fleet.start("probe:service")

    def process(self, pid: int) -> Process:
        """The process of this id."""
        return next(each for each in self.fleet.running if each.pid == pid)

    async def end(self, process: Process) -> None:
        """kill -9."""
        self.fleet.running.remove(process)
        await process.kill()

    def runs(self, tenant: str, kind: str = "count") -> list[Run]:
        """All runs for a tenant, in order."""
        path = self._folder / "runs.log"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        # The last one may be half written yet.
        split = (line.split() for line in lines if line.endswith("\n"))
        found = (Run(int(p), k, t, int(n), int(a)) for p, k, t, n, a in split)
        return [run for run in found if run.tenant == tenant and run.kind == kind]

    async def begins(self, program: Program, number: int, times: int = 1) -> Run:
        """The last run of a command, when there are so many."""

        def these() -> list[Run]:
            return [run for run in self.runs(program.id) if run.number == number]

        async def check() -> bool:
            return len(these()) >= times

        await eventually(check, within=60.0)
        return these()[-1]

    async def send(
        self, program: Program, number: int, act: str = "", *, action: str = "count"
    ) -> None:
        """Send a command."""
        body = {"number": number, "act": act}
        await program.client.publish(f"{self.name}.{action}", body, timeout=30.0)

    async def counted(self, program: Program) -> list[int]:
        """What the tenant's state has."""
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await program.client.request(f"{self.name}.read", timeout=2.0)
                except Exception:  # noqa: BLE001  (it was with a process that died)
                    await asyncio.sleep(0.05)
                else:
                    return list(answer["numbers"])

    async def has(self, program: Program, numbers: list[int]) -> None:
        """Return when exactly these were counted, in order, each said once."""

        async def check() -> bool:
            return await self.counted(program) == numbers

        await eventually(check, within=60.0, every=0.2)
        said = [int(each) for each in await self._events(program)]
        assert said == numbers

    async def _events(self, program: Program) -> list[str]:
        found = await journal(self._control, program.id, f"{self.name}.counted")
        return [each.data.decode().strip('"') for each in found]


@asynccontextmanager
async def probe(
    mesh: Mesh, folder: Path, name: str, control: Bus, *, replicas: int
) -> AsyncIterator[Probe]:
    """So many processes, which share the partitions."""
    it = Probe(mesh, folder, name, control)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_end, it)
        for _ in range(replicas):
            await it.start()
        await it.owners.shared(replicas)
        yield it


async def _end(it: Probe) -> None:
    for process in it.fleet.running:
        await process.kill()
