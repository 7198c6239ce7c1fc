"""A whole mesh for tests: a real server, the shipped workers and services, in one thread's loop.

Tests speak to it as its users do, with NATS clients of their own. A tenant a test keeps tests that
share a mesh apart.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import nats
from nats.aio.client import Client as NatsClient

from tenantry import Client, Service, Worker
from tenantry.bus import Bus
from tenantry.operator import OperatorHome
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind
from tenantry.runtime import WorkerOptions
from tenantry.wire import problem
from tests.servers import NatsBackend

T = TypeVar("T")
_numbers = itertools.count(1)


class Runs(Protocol):
    async def run(self, stop: asyncio.Event, *, ready: Callable[[], None]) -> None: ...


class Running:
    """One worker that runs in the mesh's loop."""

    def __init__(self, mesh: Mesh, task: asyncio.Task[None], stop: asyncio.Event) -> None:
        self._mesh = mesh
        self._task = task
        self._stop = stop

    async def stop(self) -> None:
        """Let it drain and end."""
        await self._mesh.aside(self._end())

    async def _end(self) -> None:
        self._stop.set()
        await self._task


class Mesh:
    """Starts and stops workers against one server."""

    def __init__(self, backend: NatsBackend, folder: Path) -> None:
        self.backend = backend
        self.home = OperatorHome.load(backend.home)
        self.folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._running: list[Running] = []

    @property
    def url(self) -> str:
        return self.backend.url

    # --- workers -------------------------------------------------------------------------------

    def options(self) -> WorkerOptions:
        return WorkerOptions(servers=(self.url,), home=self.home.path, drain=5.0)

    def worker(self, *services: Service) -> Worker:
        """A worker with the credentials of the role `service`."""
        return Worker(services, servers=self.url, creds=self.home.creds_path("service"), drain=5.0)

    async def aside(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the mesh's own loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def start(self, worker: Runs) -> Running:
        """Run a worker until it is stopped; returns when it is ready, raises what it raises."""
        future = asyncio.run_coroutine_threadsafe(self._begin(worker), self._loop)
        running = future.result(timeout=30)
        self._running.append(running)
        return running

    async def _begin(self, worker: Runs) -> Running:
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(worker.run(stop, ready=ready.set))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            await task
        return Running(self, task, stop)

    def close(self) -> None:
        """Stop all workers, the last started first."""
        for running in reversed(self._running):
            asyncio.run_coroutine_threadsafe(running._end(), self._loop).result(timeout=30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    # --- clients -------------------------------------------------------------------------------

    async def control(self, action: str, **body: Any) -> Any:
        """A request of the control plane (`platform.tenants.<action>`)."""
        async with await Bus.connect(self.url, creds=self.home.creds_path("control")) as bus:
            answer = await bus.call(f"platform.tenants.{action}", msgspec.json.encode(body))
        if rejection := problem.load(answer.headers, answer.data):
            raise rejection
        return msgspec.json.decode(answer.data)

    async def tenant(self, name: str | None = None, *, plan: str = "business") -> Path:
        """Create a tenant and return its credentials file, named after it."""
        name = name or f"t{next(_numbers)}"
        key = KeyPair.generate(Kind.USER)
        answer = await self.control("create", id=name, plan=plan, public_key=key.public_key)
        path = self.folder / f"{name}.creds"
        path.write_text(creds_files.render(answer["jwt"], key))
        return path

    async def client(self, creds: Path) -> Client:
        """Our own client, as one tenant."""
        return await Client.connect(self.url, creds=creds)

    async def plain(self, creds: Path, **options: Any) -> NatsClient:
        """Nothing but nats-py, as one tenant."""
        return await nats.connect(
            self.url, user_credentials=str(creds), inbox_prefix=f"_INBOX.{creds.stem}", **options
        )

    async def insider(self, role: str) -> Bus:
        """A connection inside the mesh, with a role's credentials."""
        return await Bus.connect(self.url, creds=self.home.creds_path(role), name=f"test-{role}")


async def eventually(
    check: Callable[[], Awaitable[bool]], *, within: float = 20.0, every: float = 0.05
) -> None:
    """Return when `check` holds; raises AssertionError when it does not in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not await check():
        if loop.time() > end:
            raise AssertionError(f"not within {within:g} s")
        await asyncio.sleep(every)
