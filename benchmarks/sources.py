"""Stored messages of fifty tenants, and the consumers that each work off all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
from nats.js.client import JetStreamContext

from benchmarks.client import TRACE
from benchmarks.mesh import UNLIMITED, Mesh, mesh, nats_server, python
from benchmarks.peers.meter import SERVER
from benchmarks.population import unbound
from tenantry.control import Control
from tenantry.operator import OperatorHome
from tenantry.operator.creds import public_key_of
from tenantry.operator.roles import inbox_prefix
from tenantry.streams import JOURNAL
from tenantry.wire import headers

PLAIN, FLOOR, OURS = "bare pull consumer", "bare, on the journal", "Tenantry"
TENANTS = tuple(f"tenant{number}" for number in range(50))
_IN_FLIGHT = 1000
_STATE = 0.2
"""The share of all messages that handlers with state get: each costs many times as much."""

Consumer = Callable[[], AbstractAsyncContextManager[asyncio.subprocess.Process]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where messages are stored, and who works them off."""

    js: JetStreamContext
    subject: str
    """`{tenant}` stands for the tenant."""
    stamps: Callable[[], Awaitable[dict[str, dict[str, str]]]]
    """The headers of a tenant's messages, by tenant."""
    consumers: dict[str, Consumer]
    floor: str
    """The consumer that the others are compared with; it may be another source's."""
    share: float = 1.0
    """How many of all messages it gets."""

    async def store(self, count: int) -> None:
        """Store messages; each names how many there are, so that a consumer knows the last."""
        body = b'{"sku":"A-1","quantity":%d,"note":"%s"}' % (count, b"x" * 200)
        stamps, left = await self.stamps(), iter(range(count))

        async def publish() -> None:
            for number in left:
                tenant = TENANTS[number % len(TENANTS)]
                subject, stamp = self.subject.format(tenant=tenant), dict(stamps[tenant])
                await self.js.publish(subject, body, timeout=30, headers=stamp)

        await asyncio.gather(*(publish() for _ in range(min(_IN_FLIGHT, count))))


@asynccontextmanager
async def peers(folder: Path) -> AsyncIterator[list[Source]]:
    """A plain server, and a stream with a consumer for each peer on it."""
    roles = {
        PLAIN: ("bare", "pull"),
        "FastStream": ("fast", "pull"),
        "FastStream, batches": ("fast", "batches"),
    }
    async with nats_server(folder) as (url, pid):
        client = await nats.connect(url)
        js, sources = client.jetstream(), []
        for name, (module, role) in roles.items():
            stream = f"{module}-{role}"
            await js.add_stream(name=stream, subjects=[f"{stream}.*.drain.take"])
            consumer = _peer(pid, f"{module}", role, url, stream, "drain")
            subject = f"{stream}.{{tenant}}.drain.take"
            sources.append(
                Source(
                    js=js, subject=subject, stamps=_traced, consumers={name: consumer}, floor=PLAIN
                )
            )
        yield sources
        await client.close()


def _peer(pid: int, module: str, *arguments: str) -> Consumer:
    """A process of `benchmarks.peers` that watches the server with this process id."""
    env = {SERVER: str(pid)}
    return lambda: python(f"benchmarks.peers.{module}", *arguments, ready=False, env=env)


async def _traced() -> dict[str, dict[str, str]]:
    """What a client that traces sends."""
    return dict.fromkeys(TENANTS, TRACE)


@asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[list[Source]]:
    """A mesh without a service, whose services a worker has declared once.

    On each of its sources others read the same messages of the same journal.
    """
    async with mesh(folder, "", dict.fromkeys(TENANTS, UNLIMITED)) as running:
        for module in ("drain", "kept"):
            async with _worker(running, module, ready=True):
                pass
        client = await nats.connect(
            running.url,
            user_credentials=str(running.control),
            inbox_prefix=inbox_prefix(public_key_of(running.control.read_text())),
        )
        async with await Control.connect(running.url, creds=running.control) as control:
            yield _sources(running, client.jetstream(), control)
        await client.close()


def _sources(running: Mesh, js: JetStreamContext, control: Control) -> list[Source]:
    creds = running.state / "peers.creds"
    creds.write_text(unbound(OperatorHome.load(running.state / "operator")))
    pid = running.pids["server"]

    async def stamps() -> dict[str, dict[str, str]]:
        """As the router stamps them; a context is valid for minutes."""
        return {
            tenant: TRACE | {headers.CONTEXT: await control.issue_context(tenant)}
            for tenant in TENANTS
        }

    def peer(name: str, action: str, *process: str) -> Consumer:
        access = (f"journal.*.*.{action}", str(creds), f"_MESH.{name}")
        module, *role = process
        return _peer(pid, module, *role, running.url, JOURNAL, name, *access)

    def source(action: str, consumers: dict[str, Consumer], share: float = 1.0) -> Source:
        return Source(
            js=js,
            subject=f"tenant.{{tenant}}.{action}",
            stamps=stamps,
            consumers=consumers,
            floor=next(iter(consumers)),
            share=share,
        )

    idle = {
        FLOOR: peer("bare", "drain.take", "bare", "pull"),
        "bare, our transport": peer("transport", "drain.take", "transport"),
        OURS: lambda: _worker(running, "drain"),
    }
    one = {
        "bare, one key": peer("one", "kept.one", "keyed", "one"),
        f"{OURS}, one key": lambda: _worker(running, "kept"),
    }
    two = {
        "bare, two keys and event": peer("two", "kept.two", "keyed", "two"),
        f"{OURS}, two keys and event": lambda: _worker(running, "kept"),
    }
    return [
        source("drain.take", idle),
        source("kept.one", one, _STATE),
        source("kept.two", two, _STATE),
    ]


def _worker(
    running: Mesh, module: str, *, ready: bool = False
) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """A worker of the mesh beside its own processes, until it is stopped."""
    target = f"benchmarks.{module}:service"
    where = ("--url", running.url, "--state", str(running.state))
    env = {SERVER: str(running.pids["server"])}
    return python("tenantry", "run", target, *where, ready=ready, env=env)
