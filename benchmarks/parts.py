"""A mesh whose processes are started one by one, so that each start can be timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import Crowd, Stream, body
from benchmarks.mesh import UNLIMITED, python
from benchmarks.population import anybody, unbound
from tenantry.bus import Bucket, Bus
from tenantry.local.mesh import MeshOptions, prepare
from tenantry.local.server import NatsProcess
from tenantry.local.state import StateFolder
from tenantry.messages import Plan
from tenantry.operator import OperatorHome


@dataclass(slots=True)
class Parts:
    """A server that is provisioned, and what was started beside it."""

    url: str
    state: StateFolder
    home: OperatorHome
    bus: Bus
    """With the credentials of the role `control`."""
    pids: dict[str, int]
    started: dict[str, float] = field(default_factory=dict)
    """How long each part took until it was ready, seconds."""
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(
        self, name: str, target: str, *, env: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        """Start a router or a worker; `env` is what its environment has besides."""
        begin = time.perf_counter()
        where = ("--url", self.url, "--state", str(self.state.path))
        child = await self.stack.enter_async_context(
            python("tenantry", "run", target, *where, env=env)
        )
        self.started[name] = time.perf_counter() - begin
        self.pids[name] = child.pid
        return child

    def anybody(self) -> Path:
        """Credentials that may speak for every tenant."""
        creds = self.state.path / "anybody.creds"
        if not creds.exists():
            creds.write_text(anybody(self.home))
        return creds

    def unbound(self) -> Path:
        """Credentials in MESH that may do everything."""
        creds = self.state.path / "unbound.creds"
        if not creds.exists():
            creds.write_text(unbound(self.home))
        return creds

    def stream(self, crowd: Crowd, *, rate: float = 0.0, in_flight: int = 0) -> Stream:
        """Requests of a crowd to the service of `benchmarks.echo`."""
        return Stream(
            name=f"{crowd.spread} {crowd.tenants}",
            url=self.url,
            subject="tenant.{tenant}.bench.echo",
            body=body(),
            creds=str(self.anybody()),
            inbox="_INBOX.{tenant}",
            rate=rate,
            in_flight=in_flight,
            crowd=crowd,
        )

    def disk(self, stream: str) -> int:
        """What a stream takes there, bytes."""
        folders = self.state.path.glob(f"data/jetstream/*/streams/{stream}")
        return sum(
            file.stat().st_size
            for folder in folders
            for file in folder.rglob("*")
            if file.is_file()
        )


@asynccontextmanager
async def parts(folder: Path) -> AsyncIterator[Parts]:
    """A server with all streams and the plan that is no limit; no process of ours runs yet.

    The tenants worker has set it up and is gone: it is not in the way of a message.
    """
    state = StateFolder.open(folder)
    url, _ = prepare(state, MeshOptions(port=0))
    home = OperatorHome.load(state.operator)
    server = NatsProcess(
        state.operator / "server.conf", port=int(url.rpartition(":")[2]), cwd=state.path
    )
    async with AsyncExitStack() as stack:
        server.start()
        stack.callback(server.stop)
        where = ("--url", url, "--state", str(state.path))
        async with python("tenantry", "run", "tenants", *where):
            pass
        bus = await Bus.connect(url, creds=home.creds_path("control"), name="benchmarks")
        stack.push_async_callback(bus.close)
        await Bucket(bus, "plans", Plan).put(UNLIMITED.name, UNLIMITED)
        assert server.pid is not None
        found = Parts(url, state, home, bus, {"server": server.pid})
        await stack.enter_async_context(found.stack)
        yield found
