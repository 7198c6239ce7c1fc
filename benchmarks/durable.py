"""Stored commands worked off by one consumer, against bare pull consumers and FastStream.

In each round messages are stored while all consumers are away; then one after another is started,
and each works off all of them. A consumer tells how long the middle half of the messages took, and
the CPU of that. So no start counts, nobody stores meanwhile, and each holds as many messages at the
end as at the beginning. The messages are of fifty tenants in turns. Those in Tenantry's journal
carry what the router gives them; the same messages are read by bare consumers, which are what
Tenantry is compared with. Those of the other peers are in streams of a plain server.

Handlers with state have peers that do the same with nats-py and a bucket, one tenant's messages
one after another, and without Tenantry's promise that all of it counts once or not at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from benchmarks.sources import OURS, PLAIN, TENANTS, Consumer, ours, peers
from benchmarks.stats import Spread, spread

T = TypeVar("T")

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
    floors: dict[str, str] = field(default_factory=dict)
    """The side that each side is compared with."""


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All rounds; the first is a warm-up and not counted."""
    results = Results()
    async with AsyncExitStack() as stack:
        sources = [
            *await stack.enter_async_context(peers(folder)),
            *await stack.enter_async_context(ours(folder)),
        ]
        for source in sources:
            for name in source.consumers:
                results.sides[name], results.floors[name] = [], source.floor
        for number in range(int(options.quick), options.rounds + 1):
            messages = options.messages if number else options.messages // 4
            for source in _turned(sources, number):
                count = int(messages * source.share)
                await source.store(count)
                for name in _turned(list(source.consumers), number):
                    sample = await measure(source.consumers[name])
                    if number:
                        results.sides[name].append(sample)
                        console.print(f"round {number} {name:<30} {sample.rate:8.0f} messages/s")
    return results


def _turned(each: Sequence[T], number: int) -> list[T]:
    """The same, with another one first in each round."""
    first = number % len(each)
    return [*each[first:], *each[:first]]


async def measure(consumer: Consumer) -> Sample:
    """Have one consumer work off what is stored."""
    async with consumer() as child, asyncio.timeout(300):
        count, took, cpu, server = await told(child)
    return Sample(rate=count / took, consumer=cpu / count, server=server / count)


async def told(consumer: asyncio.subprocess.Process) -> tuple[int, float, float, float]:
    """What the meter says, which may be before the consumer says that it is ready."""
    assert consumer.stdout is not None
    while line := await consumer.stdout.readline():
        if line.startswith(b"["):
            count, took, cpu, server = json.loads(line)
            return count, took, cpu, server
    raise RuntimeError("a consumer has ended before its work")


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print medians with their spread, and the ratios to each side's floor."""
    figures: dict[str, Callable[[Sample], float]] = {
        "rate": lambda s: s.rate,
        "CPU": lambda s: s.consumer,
        "server": lambda s: s.server,
    }
    heads = ("messages/s", "consumer, µs", "nats-server, µs")
    table = Table("durable", *heads, *(f"{name} / bare" for name in figures))
    for name, samples in results.sides.items():
        table.add_row(
            name,
            f"{spread([s.rate for s in samples]):.0f}",
            f"{spread([s.consumer * _MICROSECONDS for s in samples]):.1f}",
            f"{spread([s.server * _MICROSECONDS for s in samples]):.1f}",
            *(
                f"{_ratio(results, name, results.floors[name], value):.2f}"
                for value in figures.values()
            ),
        )
    console.print(table)
    plain = (f"{k} {_ratio(results, OURS, PLAIN, value):.2f}" for k, value in figures.items())
    console.print(
        f"{options.rounds} rounds of {options.messages} messages of {len(TENANTS)} tenants, with "
        "state a fifth of that; one consumer process; medians ± half of the quartiles' distance, "
        f"ratios of the same round to the bare side of the same work. {OURS} to a {PLAIN} of a "
        f"plain server and shorter messages: {', '.join(plain)}"
    )


def _ratio(results: Results, name: str, floor: str, value: Callable[[Sample], float]) -> Spread:
    pairs = zip(results.sides[name], results.sides[floor], strict=True)
    return spread([value(this) / value(bare) for this, bare in pairs])
