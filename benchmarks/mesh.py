"""A mesh as `tenantry up` starts it, and processes of ours beside it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.client import Generator
from tenantry.bus import Bucket
from tenantry.control import Control
from tenantry.local.server import find_nats_server, free_port
from tenantry.local.state import StateFolder
from tenantry.messages import Plan

ROOT = Path(__file__).parent.parent
UNLIMITED = Plan(name="unlimited", rate=1e6, burst=1_000_000)
"""A plan that is no limit here."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Where it is, who may connect, and its processes."""

    url: str
    state: Path
    """The state folder: where `tenantry run` finds the rest."""
    control: Path
    """Credentials of the role `control`."""
    creds: dict[str, Path]
    """By tenant."""
    pids: dict[str, int]
    """`server`, `router`, `worker`."""


@asynccontextmanager
async def mesh(folder: Path, module: str, tenants: Mapping[str, Plan]) -> AsyncIterator[Mesh]:
    """One worker of the service in `module`, if it is named, and tenants with their plans."""
    state = StateFolder(folder / "mesh" / module)
    services = (f"{module}:service",) if module else ()
    arguments = ("up", "--port", "0", "--state", str(state.path), *services)
    async with python("tenantry", *arguments):
        running = state.running()
        if running is None:
            raise RuntimeError("the mesh did not start")
        operator, creds = state.operator / "creds" / "control.creds", {}
        async with await Control.connect(running.url, creds=operator) as control:
            bucket = Bucket(control.bus, "plans", Plan)
            for plan in {plan.name: plan for plan in tenants.values()}.values():
                await bucket.put(plan.name, plan)
            for tenant, plan in tenants.items():
                creds[tenant] = state.path / f"{tenant}.creds"
                _, text = await control.create(tenant, plan=plan.name)
                creds[tenant].write_text(text)
        parts = {"server": "nats", "router": "router"}
        if module:
            parts["worker"] = module.rpartition(".")[2]
        pids = {
            name: child.pid
            for child in running.children
            for name, part in parts.items()
            if part in child.name and child.pid is not None
        }
        yield Mesh(running.url, state.path, operator, creds, pids)


@asynccontextmanager
async def nats_server(folder: Path) -> AsyncIterator[tuple[str, int]]:
    """A plain server with JetStream that lets anybody in: its URL and process id."""
    port, config = free_port(), folder / "bare.conf"
    config.write_text(f'listen: 127.0.0.1:{port}\njetstream {{ store_dir: "{folder / "bare"}" }}\n')
    command = (str(find_nats_server()), "-c", str(config))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            await asyncio.sleep(0.5)
            yield f"nats://127.0.0.1:{port}", server.pid
        finally:
            server.terminate()


@asynccontextmanager
async def generator() -> AsyncIterator[Generator]:
    """A load process on cores of its own."""
    async with python("benchmarks.client", cores=machine.LOAD_CORES) as child:
        yield Generator(child)


@asynccontextmanager
async def python(
    module: str,
    *arguments: str,
    cores: Iterable[int] = (),
    ready: bool = True,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a module of ours until the block ends; it is ready when its first line says so.

    Where `ready` is false, that is not waited for. `env` is what its environment has besides.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=1 << 26,
        env={**os.environ, **(env or {})},
        preexec_fn=machine.pin(cores) if cores else None,
    )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(60):
            if ready and not (await child.stdout.readline()).startswith(b"ready"):
                raise RuntimeError(f"{module} did not start")
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def ask(child: asyncio.subprocess.Process) -> bytes:
    """Send a line to a process and return the line that it answers with."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"\n")
    await child.stdin.drain()
    async with asyncio.timeout(120):
        return await child.stdout.readline()
