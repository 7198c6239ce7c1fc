"""A whole mesh for tests: a real server, the shipped workers and services, in one thread's loop.

Tests speak to it as its users do, with NATS clients of their own. A tenant a test keeps tests that
share a mesh apart.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import nats
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from tenantry import Client, Service, Worker, errors
from tenantry.bus import Bucket, Bus
from tenantry.context.token import Minter
from tenantry.messages import Plan
from tenantry.operator import OperatorHome, claims
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind
from tenantry.runtime import WorkerOptions
from tenantry.subjects import partition
from tenantry.wire import problem
from tests.servers import NatsBackend

T = TypeVar("T")
_numbers = itertools.count(1)


PATIENCE = float(os.environ.get("TENANTRY_TEST_PATIENCE", "20"))
"""Seconds that something which has to happen may take."""


STOP = 30.0
"""Seconds that a worker may take to drain and end."""


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
        async with asyncio.timeout(STOP):
            await self._mesh.aside(self._end())

    async def _end(self) -> None:
        self._stop.set()
        await self._task


class Answer:
    """What a plain client sees of an answer."""

    def __init__(self, message: Msg) -> None:
        self.subject = message.subject
        self.data = message.data
        self.headers: dict[str, str] = dict(message.headers or {})

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def code(self) -> str:
        """Of the problem; empty for a result."""
        return str(self.json["code"]) if "Nats-Service-Error-Code" in self.headers else ""


@dataclass(frozen=True)
class Program:
    """A tenant's programs: our own client, and one that is nothing but nats-py."""

    id: str
    creds: Path
    client: Client
    plain: NatsClient

    async def ask(
        self,
        action: str,
        body: Any = b"{}",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Answer:
        """A plain request; `body` as it is, or as JSON."""
        payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
        fields = dict(headers) if headers else None
        subject = f"tenant.{self.id}.{action}"
        return Answer(await self.plain.request(subject, payload, timeout=timeout, headers=fields))

    async def texts(self, service: str = "notes") -> list[str]:
        """What the service remembers of this tenant, in order."""
        answer = await self.client.request(f"{service}.texts", timeout=PATIENCE)
        return list(answer["texts"])


class Unbound(claims.User, frozen=True, tag_field="type", tag="user"):
    """A user that no template binds: it may do everything but read the edge."""

    sub: claims.Permission = claims.Permission(deny=("edge.>",))
    subs: int = claims.UNLIMITED
    data: int = claims.UNLIMITED
    payload: int = claims.UNLIMITED


def root_creds(home: OperatorHome, folder: Path) -> Path:
    """Credentials of MESH that are no role's, signed by the key that belongs offline."""
    path = folder / "root.creds"
    if not path.exists():
        signer = KeyPair.from_seed((home.path / "keys" / "mesh.nk").read_text().strip())
        user = KeyPair.generate(Kind.USER)
        tags = (creds_files.root_tag(home.context_root),) if home.context_root else ()
        unbound = Unbound(tags=tags)
        jwt = claims.encode(unbound, subject=user.public_key, signer=signer, name="root")
        path.write_text(creds_files.render(jwt, user))
    return path


class Mesh:
    """Starts and stops workers against one server."""

    def __init__(self, backend: NatsBackend, folder: Path) -> None:
        self.backend = backend
        self.home = OperatorHome.load(backend.home)
        self.folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.running: list[Running] = []

    @property
    def url(self) -> str:
        return self.backend.url

    # --- workers -------------------------------------------------------------------------------

    def options(self, *, server_log: Path | None = None) -> WorkerOptions:
        return WorkerOptions(
            servers=(self.url,), home=self.home.path, drain=5.0, server_log=server_log
        )

    def worker(self, *services: Service, drain: float = 5.0) -> Worker:
        """A worker with credentials for exactly these services."""
        creds = self.home.service_creds([service.name for service in services])
        return Worker(services, servers=self.url, creds=creds, drain=drain)

    async def aside(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the mesh's own loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def start(self, worker: Runs) -> Running:
        """Run a worker until it is stopped; returns when it is ready, raises what it raises."""
        future = asyncio.run_coroutine_threadsafe(self._begin(worker), self._loop)
        running = future.result(timeout=STOP)
        self.running.append(running)
        return running

    def end(self, running: Running) -> None:
        """Stop a worker, from where nothing can be awaited."""
        asyncio.run_coroutine_threadsafe(running._end(), self._loop).result(timeout=STOP)

    async def _begin(self, worker: Runs) -> Running:
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(worker.run(stop, ready=ready.set))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            await task
        return Running(self, task, stop)

    async def tasks(self) -> int:
        """How many tasks there are in the mesh's loop."""

        async def count() -> int:
            return len(asyncio.all_tasks())

        return await self.aside(count())

    async def set(self, event: asyncio.Event) -> None:
        """Set an event that a handler waits for, in the loop that it waits in."""

        async def do() -> None:
            event.set()

        await self.aside(do())

    async def ready(self, program: Program, action: str) -> None:
        """Return when this request is served; it is refused for its body, so nothing happens."""

        async def check() -> bool:
            return (await program.ask(action, b"[]")).code == "bad_message"

        await eventually(check)

    def close(self) -> None:
        """Stop all workers, the last started first."""
        for running in reversed(self.running):
            self.end(running)
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

    @asynccontextmanager
    async def program(
        self, name: str | None = None, *, plan: str = "business"
    ) -> AsyncIterator[Program]:
        """A new tenant and its programs, once the router knows it."""
        creds = await self.tenant(name, plan=plan)
        async with self._connected(creds) as program:
            await eventually(lambda: _is_known(program.client))
            yield program

    @asynccontextmanager
    async def ghost(self) -> AsyncIterator[Program]:
        """Programs whose credentials are good, of a tenant that was never created."""
        name = f"ghost{next(_numbers)}"
        creds = self.folder / f"{name}.creds"
        creds.write_text(self.home.tenant_creds(name))
        async with self._connected(creds) as program:
            yield program

    @asynccontextmanager
    async def _connected(self, creds: Path) -> AsyncIterator[Program]:
        async with await self.client(creds) as client:
            plain = await self.plain(creds)
            try:
                yield Program(creds.stem, creds, client, plain)
            finally:
                await plain.close()

    @asynccontextmanager
    async def neighbours(self) -> AsyncIterator[tuple[Program, Program]]:
        """Two tenants of one partition, so that they share a lane of every service."""
        first = f"t{next(_numbers)}"
        second = next(
            name
            for name in (f"t{next(_numbers)}" for _ in iter(int, 1))
            if partition(name) == partition(first)
        )
        async with self.program(first) as one, self.program(second) as two:
            yield one, two

    async def plan(self, name: str, **fields: Any) -> str:
        """Make a plan, and return its name."""
        async with await self.insider("control") as control:
            await Bucket(control, "plans", Plan).put(name, Plan(name=name, **fields))
        return name

    def minter(self, **options: Any) -> Minter:
        """Signs contexts with the mesh's own key."""
        return Minter(*self.home.context_keys()[-1], **options)

    async def client(self, creds: Path) -> Client:
        """Our own client, as one tenant."""
        return await Client.connect(self.url, creds=creds)

    async def plain(self, creds: Path, **options: Any) -> NatsClient:
        """Nothing but nats-py, as one tenant."""
        return await nats.connect(
            self.url, user_credentials=str(creds), inbox_prefix=f"_INBOX.{creds.stem}", **options
        )

    async def insider(self, role: str, *services: str) -> Bus:
        """A connection inside the mesh, with a role's credentials, those of `service` for these.

        The role `root` is none of the mesh's: it may do
        everything but read the edge.
        """
        creds = self.creds(role, *services)
        return await Bus.connect(self.url, creds=creds, name=f"test-{role}")

    def creds(self, role: str, *services: str) -> Path:
        """The credentials of a role."""
        if role == "root":
            return root_creds(self.home, self.folder)
        return self.home.service_creds(services) if services else self.home.creds_path(role)


class Entry(NamedTuple):
    """One message of the journal."""

    partition: int
    name: str
    """`<service>.<action>`."""
    seq: int
    headers: dict[str, str]
    data: bytes


async def journal(control: Bus, tenant: str, name: str = ">") -> list[Entry]:
    """What the journal holds of a tenant, as the control plane sees it."""
    entries: list[Entry] = []
    while True:
        ask = {"seq": entries[-1].seq + 1 if entries else 1}
        ask["next_by_subj"] = f"journal.*.{tenant}.{name}"
        answer = await control.call("$JS.API.DIRECT.GET.JOURNAL", msgspec.json.encode(ask))
        headers = dict(answer.headers or {})
        if headers.get("Status") == "404":
            return entries
        subject = headers["Nats-Subject"].split(".", 3)
        seq = int(headers["Nats-Sequence"])
        entries.append(Entry(int(subject[1]), subject[3], seq, headers, answer.data))


async def _is_known(client: Client) -> bool:
    try:
        await client.request("nobody.nothing")
    except (errors.TenantUnknown, errors.Unavailable):
        return False
    except errors.Rejection:
        return True
    return True


async def eventually(
    check: Callable[[], Awaitable[bool]], *, within: float = PATIENCE, every: float = 0.05
) -> None:
    """Return when `check` holds; raises AssertionError when it does not in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not await check():
        if loop.time() > end:
            raise AssertionError(f"not within {within:g} s")
        await asyncio.sleep(every)
