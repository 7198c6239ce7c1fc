"""What a quiet tenant notices when another floods the same service, and how fairly it is shared.

A flood of a hundred times the quiet tenant's rate is about twice what the service can do. On one
side plain nats-py with a queue group; on the other the mesh, first with plans that are no limit,
so that only the worker's fair scheduling protects, then with a plan that holds the flood back at
the router. Windows with and without the flood alternate.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.client import Answers, Generator, Stream, body
from benchmarks.mesh import UNLIMITED, Mesh, generator, mesh, nats_server, python
from tenantry.messages import Plan

_QUIET, _FLOOD = 30.0, 3000.0
_EQUAL = {f"equal{n}": 1 for n in range(8)}
_WEIGHTED = {"heavy": 4, "middle": 2, "light": 1}
_SHARED = 3200.0
"""What all of those who share ask for together, messages a second: twice what there is."""


@dataclass(slots=True)
class Side:
    """The quiet tenant's latencies on one side, seconds, by window."""

    alone: list[tuple[float, float]] = field(default_factory=list)
    """p50 and p99."""
    flooded: list[tuple[float, float]] = field(default_factory=list)
    lost: int = 0
    """Messages of the quiet tenant without a good answer."""
    refused: float = 0.0
    """The part of the flood that was refused."""


@dataclass(slots=True)
class Results:
    """All of it."""

    sides: dict[str, Side] = field(default_factory=dict)
    jain: float = 0.0
    """Jain's index of eight tenants of one weight that ask for different much."""
    share: float = 0.0
    """How far a tenant of weight 4, 2 or 1 is at most from its share, as a part of it."""


Streams = Callable[[str, float], Stream]


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All windows; the first pair of each side is a warm-up and not counted."""
    results = Results()
    held = Plan(name="held", rate=100.0, burst=200)
    plans = dict.fromkeys(("quiet", "flood", *_EQUAL), UNLIMITED) | {"held": held}
    for name, weight in _WEIGHTED.items():
        plans[name] = Plan(name=name, rate=1e6, burst=1_000_000, weight=weight)
    async with generator() as load, generator() as noise:
        async with plain(folder) as streams:
            results.sides["plain nats-py"] = await _side(options, load, noise, streams, "flood")
        async with mesh(folder, "benchmarks.crowd", plans) as running:
            streams = _routed(running)
            fair = await _side(options, load, noise, streams, "flood")
            results.sides["Tenantry, plans without a limit"] = fair
            limited = await _side(options, load, noise, streams, "held")
            results.sides["Tenantry, the flood over its plan"] = limited
            await _shares(options, load, streams, results)
    console.print("flood: done")
    return results


@asynccontextmanager
async def plain(folder: Path) -> AsyncIterator[Streams]:
    """A server of its own and a worker in nothing but nats-py."""
    async with nats_server(folder) as (url, _), python("benchmarks.crowd", url):
        yield lambda tenant, rate: Stream(
            name=tenant, url=url, subject=f"tenant.{tenant}.crowd.serve", body=body(), rate=rate
        )


def _routed(running: Mesh) -> Streams:
    return lambda tenant, rate: Stream(
        name=tenant,
        url=running.url,
        subject=f"tenant.{tenant}.crowd.serve",
        body=body(),
        rate=rate,
        creds=str(running.creds[tenant]),
        inbox=f"_INBOX.{tenant}",
    )


async def _side(
    options: argparse.Namespace, load: Generator, noise: Generator, streams: Streams, flood: str
) -> Side:
    side, refused, sent = Side(), 0, 0
    for number in range(int(options.quick), options.rounds + 1):
        seconds = 3 * options.seconds if number else 1.0
        alone = (await load.run(seconds, streams("quiet", _QUIET))).streams[0]
        async with asyncio.TaskGroup() as group:
            noisy = group.create_task(noise.run(seconds + 1.0, streams(flood, _FLOOD)))
            await asyncio.sleep(0.5)
            quiet = group.create_task(load.run(seconds, streams("quiet", _QUIET)))
        if number:
            side.alone.append(_percentiles(alone))
            side.flooded.append(_percentiles(quiet.result().streams[0]))
            side.lost += sum(each.sent - each.good for each in (alone, quiet.result().streams[0]))
            refused += noisy.result().streams[0].sent - noisy.result().streams[0].good
            sent += noisy.result().streams[0].sent
    side.refused = refused / sent
    return side


def _percentiles(answers: Answers) -> tuple[float, float]:
    return answers.latency(50), answers.latency(99)


async def _shares(
    options: argparse.Namespace, load: Generator, streams: Streams, results: Results
) -> None:
    """Everybody asks for more than there is; what each gets."""
    parts = {name: 1 + number for number, name in enumerate(_EQUAL)}
    scale = _SHARED * 1.5 / sum(parts.values())
    asked = [streams(name, part * scale + 200.0) for name, part in parts.items()]
    got = [each.steady for each in (await load.run(3 * options.seconds, *asked)).streams]
    results.jain = sum(got) ** 2 / (len(got) * sum(each**2 for each in got))
    asked = [streams(name, _SHARED / 2) for name in _WEIGHTED]
    done = {
        each.name: each.steady for each in (await load.run(3 * options.seconds, *asked)).streams
    }
    total, weights = sum(done.values()), sum(_WEIGHTED.values())
    shares = {name: weight / weights for name, weight in _WEIGHTED.items()}
    results.share = max(abs(done[n] / total - share) / share for n, share in shares.items())


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print the medians."""
    table = Table(
        "quiet tenant, ms", "p50", "p99", "p50 flooded", "p99 flooded", "p99 ratio", "lost"
    )
    for name, side in results.sides.items():
        figures = [
            median(window[index] * 1e3 for window in windows)
            for windows in (side.alone, side.flooded)
            for index in (0, 1)
        ]
        table.add_row(
            f"{name} ({side.refused:.0%} refused)",
            *(f"{figure:.1f}" for figure in figures),
            f"{figures[3] / figures[1]:.2f}",
            str(side.lost),
        )
    console.print(table)
    console.print(
        f"quiet {_QUIET:g}/s, flood {_FLOOD:g}/s; {options.rounds} windows of "
        f"{3 * options.seconds:g} s. Shares in the mesh under overload: Jain's index "
        f"{results.jain:.4f}, error of weighted shares {results.share:.2%}"
    )
