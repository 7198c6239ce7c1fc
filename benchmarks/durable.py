"""Stored commands worked off by one consumer, against a bare pull consumer and FastStream.

In each round a side's messages are stored while its consumer is away; then it is started and tells
how long it took from the first to the last message that it handled, and the CPU of that. So no
start counts, and nobody stores meanwhile. The messages are of fifty tenants in turns; those in
Tenantry's journal carry what the router gives them, the others what a client would send.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats
from nats.js.client import JetStreamContext
from rich.console import Console
from rich.table import Table

from benchmarks.client import TRACE
from benchmarks.mesh import UNLIMITED, Mesh, mesh, nats_server, python
from benchmarks.peers.meter import SERVER
from benchmarks.stats import Spread, spread
from tenantry.control import Control
from tenantry.operator.creds import public_key_of
from tenantry.operator.roles import inbox_prefix
from tenantry.wire import headers

FLOOR, OURS = "bare pull consumer", "Tenantry"
_TENANTS = tuple(f"tenant{number}" for number in range(50))
_IN_FLIGHT = 1000
_MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one side; CPU in seconds a message."""

    rate: float
    """Messages a second."""
    consumer: float
    server: float
    """Of nats-server, for the same time."""


@dataclass(slots=True)
class Results:
    """Samples of each side, by round."""

    sides: dict[str, list[Sample]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Side:
    """Where messages are stored, and what works them off."""

    js: JetStreamContext
    root: str
    """What its subjects begin with, before the tenant."""
    stamps: Callable[[], Awaitable[dict[str, dict[str, str]]]]
    """The headers of a tenant's messages, by tenant."""
    consumer: Callable[[], AbstractAsyncContextManager[asyncio.subprocess.Process]]


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All rounds; the first is a warm-up and not counted."""
    results = Results()
    async with AsyncExitStack() as stack:
        sides = await stack.enter_async_context(peers(folder))
        sides[OURS] = await stack.enter_async_context(ours(folder))
        order = list(sides)
        for number in range(int(options.quick), options.rounds + 1):
            for name in order[number % len(order) :] + order[: number % len(order)]:
                count = options.messages if number else options.messages // 4
                sample = await measure(sides[name], count)
                if number:
                    results.sides.setdefault(name, []).append(sample)
                    console.print(f"round {number} {name:<24} {sample.rate:8.0f} messages/s")
    return results


async def measure(side: Side, count: int) -> Sample:
    """Store so many messages, then have them worked off."""
    await store(side, count)
    async with side.consumer() as child, asyncio.timeout(300):
        took, cpu, server = await told(child)
    return Sample(rate=count / took, consumer=cpu / count, server=server / count)


async def told(consumer: asyncio.subprocess.Process) -> tuple[float, float, float]:
    """What the meter says, which may be before the consumer says that it is ready."""
    assert consumer.stdout is not None
    while line := await consumer.stdout.readline():
        if line.startswith(b"["):
            took, cpu, server = json.loads(line)
            return took, cpu, server
    raise RuntimeError("a consumer has ended before its work")


async def store(side: Side, count: int) -> None:
    """Each message names how many there are, so that the consumer knows the last."""
    body = b'{"sku":"A-1","quantity":%d,"note":"%s"}' % (count, b"x" * 200)
    stamps, left = await side.stamps(), iter(range(count))

    async def publish() -> None:
        for number in left:
            tenant = _TENANTS[number % len(_TENANTS)]
            subject, stamp = f"{side.root}.{tenant}.drain.take", dict(stamps[tenant])
            await side.js.publish(subject, body, timeout=30, headers=stamp)

    await asyncio.gather(*(publish() for _ in range(min(_IN_FLIGHT, count))))


@asynccontextmanager
async def peers(folder: Path) -> AsyncIterator[dict[str, Side]]:
    """A plain server, and a stream with a consumer for each side on it."""
    roles = {
        FLOOR: ("bare", "pull"),
        "FastStream": ("fast", "pull"),
        "FastStream, batches": ("fast", "batches"),
    }
    async with nats_server(folder) as (url, pid):
        client = await nats.connect(url)
        js, sides = client.jetstream(), {}
        for name, (module, role) in roles.items():
            stream = f"{module}-{role}"
            await js.add_stream(name=stream, subjects=[f"{stream}.*.drain.take"])

            def consumer(
                module: str = module, role: str = role, stream: str = stream
            ) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
                arguments = (role, url, stream, "drain")
                watched = {SERVER: str(pid)}
                return python(f"benchmarks.peers.{module}", *arguments, ready=False, env=watched)

            sides[name] = Side(js, stream, traced, consumer)
        yield sides
        await client.close()


@asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[Side]:
    """A mesh without a service, which a worker has declared once."""
    async with mesh(folder, "", dict.fromkeys(_TENANTS, UNLIMITED)) as running:
        async with worker(running, ready=True):
            pass
        client = await nats.connect(
            running.url,
            user_credentials=str(running.control),
            inbox_prefix=inbox_prefix(public_key_of(running.control.read_text())),
        )
        async with await Control.connect(running.url, creds=running.control) as control:

            async def stamps() -> dict[str, dict[str, str]]:
                """As the router stamps them; a context is valid for minutes."""
                return {
                    tenant: TRACE | {headers.CONTEXT: await control.issue_context(tenant)}
                    for tenant in _TENANTS
                }

            yield Side(client.jetstream(), "tenant", stamps, lambda: worker(running))
        await client.close()


def worker(
    running: Mesh, *, ready: bool = False
) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """A worker of the mesh beside its own processes, until it is stopped."""
    place = ("--url", running.url, "--state", str(running.state))
    watched = {SERVER: str(running.pids["server"])}
    return python("tenantry", "run", "benchmarks.drain:service", *place, ready=ready, env=watched)


async def traced() -> dict[str, dict[str, str]]:
    """What a client that traces sends."""
    return dict.fromkeys(_TENANTS, TRACE)


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print medians with their spread, and the ratios to the floor."""
    table = Table(
        "durable", "messages/s", "consumer, µs", "nats-server, µs", "rate / bare", "CPU / bare"
    )
    for name, samples in results.sides.items():
        table.add_row(
            name,
            f"{spread([s.rate for s in samples]):.0f}",
            f"{spread([s.consumer * _MICROSECONDS for s in samples]):.1f}",
            f"{spread([s.server * _MICROSECONDS for s in samples]):.1f}",
            f"{_ratio(results, name, lambda s: s.rate):.2f}",
            f"{_ratio(results, name, lambda s: s.consumer):.2f}",
        )
    console.print(table)
    console.print(
        f"{options.rounds} rounds of {options.messages} messages of {len(_TENANTS)} tenants, one "
        "consumer process; medians ± half of the quartiles' distance, ratios of the same round"
    )


def _ratio(results: Results, name: str, value: Callable[[Sample], float]) -> Spread:
    pairs = zip(results.sides[name], results.sides[FLOOR], strict=True)
    return spread([value(ours) / value(floor) for ours, floor in pairs])
