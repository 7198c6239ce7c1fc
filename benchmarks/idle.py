"""What a service costs that has nothing to do, beside bare pull consumers that have nothing to do.

Two replicas share sixteen partitions without a message. What is counted is each message to
JetStream's API, each write to a bucket and each acknowledgement, as a subscriber hears them.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.mesh import python
from benchmarks.parts import Parts, parts
from tenantry.bus import Bus, Message
from tenantry.streams import JOURNAL

_REPLICAS = 2
_SETTLE = 4.0
"""Seconds after the last start before anything counts."""
_WINDOW = 20.0
"""How many times `--seconds` a window is: whole periods of what happens each 15 or 30 s."""
BARE, OURS = "bare pull consumers", "Tenantry"
_HEARD = ("$JS.API.>", "$KV.>", "$JS.ACK.>")


@dataclass(frozen=True, slots=True)
class Sample:
    """One window."""

    operations: dict[str, float]
    """Operations a second, by kind."""
    consumers: float
    """CPU of all replicas together, cores."""
    server: float

    @property
    def total(self) -> float:
        """Operations of all kinds a second."""
        return sum(self.operations.values())


@dataclass(slots=True)
class Results:
    """Samples of each side, by round."""

    sides: dict[str, list[Sample]] = field(default_factory=dict)


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All rounds; both sides are started anew in each."""
    results = Results()
    sides: dict[str, Callable[[Parts], AbstractAsyncContextManager[dict[str, int]]]]
    sides = {BARE: _bare, OURS: _ours}
    async with parts(folder) as found:
        bus = await Bus.connect(found.url, creds=found.unbound(), inbox="_MESH.idle")
        async with bus:
            for _ in range(options.rounds):
                for name, start in sides.items():
                    async with start(found) as pids:
                        await asyncio.sleep(min(_SETTLE, _WINDOW * options.seconds))
                        watched = {"server": found.pids["server"], **pids}
                        sample = await _window(bus, watched, _WINDOW * options.seconds)
                    results.sides.setdefault(name, []).append(sample)
                    console.print(f"idle: {name:<20} {sample.total:.2f} operations/s")
    return results


@asynccontextmanager
async def _bare(found: Parts) -> AsyncIterator[dict[str, int]]:
    """Processes that share a durable consumer of the same journal."""
    access = ("journal.*.*.drain.take", str(found.unbound()), "_MESH.bare")
    async with AsyncExitStack() as stack:
        pids = {}
        for number in range(_REPLICAS):
            arguments = ("pull", found.url, JOURNAL, "drain", *access)
            child = await stack.enter_async_context(python("benchmarks.peers.bare", *arguments))
            pids[f"bare-{number}"] = child.pid
        yield pids


@asynccontextmanager
async def _ours(found: Parts) -> AsyncIterator[dict[str, int]]:
    where = ("--url", found.url, "--state", str(found.state.path))
    async with AsyncExitStack() as stack:
        pids = {}
        for number in range(_REPLICAS):
            target = ("tenantry", "run", "benchmarks.drain:service", *where)
            child = await stack.enter_async_context(python(*target))
            pids[f"worker-{number}"] = child.pid
        yield pids


async def _window(bus: Bus, pids: Mapping[str, int], seconds: float) -> Sample:
    heard: Counter[str] = Counter()

    def count(message: Message) -> None:
        heard[_kind(message.subject)] += 1

    listening = [await bus.listen(subject, count) for subject in _HEARD]
    before = machine.cpu(pids)
    await asyncio.sleep(seconds)
    after = machine.cpu(pids)
    operations = {kind: number / seconds for kind, number in heard.items()}
    for each in listening:
        await each.stop()
    cores = {name: (after[name] - before[name]) / seconds for name in pids}
    server = cores.pop("server")
    return Sample(operations, sum(cores.values()), server)


def _kind(subject: str) -> str:
    """`CONSUMER.MSG.NEXT JOURNAL` of an API call, `$KV.leases` of a write."""
    tokens = subject.split(".")
    if tokens[0] == "$KV":
        return f"write of {tokens[1]}"
    if tokens[1] == "ACK":
        return "acknowledgement"
    words = [token for token in tokens[2:] if token.isupper() and not set("_$") & set(token)]
    streams = [token for token in tokens[2:] if token == JOURNAL or token.startswith("KV_")]
    call = ".".join(word for word in words if word != JOURNAL)
    return f"{call} {' '.join(streams)}".strip()


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print medians, and what the operations were."""
    heads = ("operations/s", "consumers, % of a core", "nats-server, % of a core")
    table = Table(f"idle, {_REPLICAS} processes", *heads, "consumers' CPU / bare")
    floor = median(sample.consumers for sample in results.sides[BARE])
    for name, samples in results.sides.items():
        consumers = median(sample.consumers for sample in samples)
        table.add_row(
            name,
            f"{median(sample.total for sample in samples):.2f}",
            f"{consumers * 100:.2f}",
            f"{median(sample.server for sample in samples) * 100:.2f}",
            f"{consumers / floor:.2f}",
        )
    console.print(table)
    kinds: Counter[str] = Counter()
    for sample in results.sides[OURS]:
        kinds.update(sample.operations)
    each = (f"{kind} {sum_ / options.rounds:.2f}" for kind, sum_ in kinds.most_common())
    console.print(
        f"{options.rounds} windows of {_WINDOW * options.seconds:g} s. Of {OURS}, a second: "
        f"{', '.join(each)}"
    )
