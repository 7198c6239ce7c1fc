"""What others notice while one tenant has a hundred thousand stored messages waiting.

One worker process, a handler that waits 5 ms, and twenty tenants that send 50 messages a second
together through a router; five of them share a partition with the tenant of the backlog. In each
round there is a window without a backlog; then another tenant's messages are stored as quickly as
they are taken; then there is a window while they wait. After that they are removed from the
journal. A latency is from when a message was to be sent until its handler was done with it.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import noted
from benchmarks.client import tenant_name
from benchmarks.mesh import UNLIMITED
from benchmarks.parts import parts
from benchmarks.population import populate
from benchmarks.sender import Load, sender
from tenantry import subjects
from tenantry.bus import Bus
from tenantry.bus.jetstream import api
from tenantry.streams import JOURNAL

_POPULATION = 500
_PARTITION = 3
_SHARING, _APART = 5, 15
_RATE = 50.0
_PAUSE = 0.005
_WINDOW = 10.0
"""How many times `--seconds` a window is."""
_TIMES = 5
"""The backlog is so many times `--messages`."""
_REST = 2.0
QUIET, COMING, WAITING = "no backlog", "it is stored", "it waits"


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who sends."""

    sharing: tuple[str, ...]
    """Tenants in the partition of the backlog."""
    apart: tuple[str, ...]
    heavy: tuple[str, ...]
    """Tenants that have a backlog, one a round."""

    @property
    def others(self) -> tuple[str, ...]:
        """All that have none."""
        return (*self.sharing, *self.apart)


@dataclass(slots=True)
class Results:
    """p50 and p99 of each window, seconds, by who sent and what was there meanwhile."""

    apart: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    sharing: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    backlog: int = 0
    stored: list[float] = field(default_factory=list)
    """Messages a second, while the backlog was stored."""


@dataclass(frozen=True, slots=True)
class _Window:
    what: str
    begin: float
    end: float


def crowd(rounds: int) -> Crowd:
    """Tenants by partition."""
    names = [tenant_name(number) for number in range(_POPULATION)]
    here = [name for name in names if subjects.partition(name) == _PARTITION]
    away = [name for name in names if subjects.partition(name) != _PARTITION]
    return Crowd(
        sharing=tuple(here[:_SHARING]),
        apart=tuple(away[:_APART]),
        heavy=tuple(here[_SHARING : _SHARING + rounds + 1]),
    )


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All rounds; the first is a warm-up and not counted."""
    who, file = crowd(options.rounds), folder / "notes"
    results, windows = Results(backlog=_TIMES * options.messages), []
    async with parts(folder / "mesh") as found:
        await populate(found.bus, UNLIMITED.name, 0, _POPULATION)
        await found.start("worker", "benchmarks.noted:service", env={noted.FILE: str(file)})
        await found.start("router", "router")
        async with (
            sender(found) as load,
            sender(found) as flood,
            await Bus.connect(found.url, creds=found.unbound(), inbox="_MESH.backlog") as bus,
        ):
            await load.warm_up(who.others[0])
            load.begin(who.others, _RATE, pause=_PAUSE)
            for number in range(int(options.quick), options.rounds + 1):
                seen = await _round(options, who.heavy[number], flood, bus, file)
                if number:
                    windows += seen
                    coming = seen[1]
                    results.stored.append(results.backlog / (coming.end - coming.begin))
                    console.print(f"backlog: round {number} of {options.rounds}")
            messages = await _all(load, file, who)
    for window in windows:
        _add(results.apart, messages, window, who.apart)
        _add(results.sharing, messages, window, who.sharing)
    return results


async def _round(
    options: argparse.Namespace, heavy: str, flood: Load, bus: Bus, file: Path
) -> list[_Window]:
    """A window without the backlog, its coming, and a window with it."""
    count, seconds = _TIMES * options.messages, _WINDOW * options.seconds
    times = [time.monotonic()]
    await asyncio.sleep(seconds)
    times.append(time.monotonic())
    sent = await flood.fill(heavy, count, pause=_PAUSE)
    if sent.stored < count:
        raise RuntimeError(f"only {sent.stored} of {count} were stored: {sent.why}")
    times.append(time.monotonic())
    await asyncio.sleep(seconds)
    times.append(time.monotonic())
    done = sum(each.tenant == heavy for each in noted.read(file))
    if done >= count:
        raise RuntimeError(f"the backlog was worked off within {seconds:g} s: more --messages")
    request = {"filter": subjects.stored_of(heavy)}
    await api(bus, f"STREAM.PURGE.{JOURNAL}", request, timeout=30.0)
    await asyncio.sleep(_REST)
    kinds = (QUIET, COMING, WAITING)
    return [_Window(*each) for each in zip(kinds, times, times[1:], strict=False)]


async def _all(load: Load, file: Path, who: Crowd) -> list[noted.Noted]:
    """End the load, and wait until each of its messages is handled."""
    sent = await load.end()
    if sent.stored < sent.sent:
        raise RuntimeError(f"{sent.sent - sent.stored} of {sent.sent} were refused: {sent.why}")
    return await noted.handled(file, sent.stored, who.others)


def _add(
    into: dict[str, list[tuple[float, float]]],
    messages: Sequence[noted.Noted],
    window: _Window,
    tenants: Sequence[str],
) -> None:
    some = [
        each
        for each in messages
        if each.tenant in tenants and window.begin <= each.due < window.end
    ]
    figures = noted.percentile(some, 0.5), noted.percentile(some, 0.99)
    into.setdefault(window.what, []).append(figures)


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print the medians of the windows."""
    table = Table("others, ms", "p50", "p99", "p50 / none", "p99 / none")
    sides = {"in other partitions": results.apart, "in its partition": results.sharing}
    for name, windows in sides.items():
        for what, figures in windows.items():
            table.add_row(f"{name}: {what}", *_cells(figures, windows[QUIET]))
    console.print(table)
    console.print(
        f"{options.rounds} rounds, windows of {_WINDOW * options.seconds:g} s; {_RATE:g} "
        f"messages/s of {_SHARING + _APART} tenants; a backlog of {results.backlog}, stored at "
        f"{median(results.stored):.0f}/s; handlers wait {_PAUSE * 1e3:g} ms; medians of windows"
    )


def _cells(
    figures: Sequence[tuple[float, float]], quiet: Sequence[tuple[float, float]]
) -> list[str]:
    """Medians in milliseconds, then the medians of the ratios of the same round."""
    both = list(zip(figures, quiet, strict=True))
    times = [median(each[index] for each in figures) for index in (0, 1)]
    ratios = [median(each[index] / before[index] for each, before in both) for index in (0, 1)]
    return [*(f"{each * 1e3:.1f}" for each in times), *(f"{each:.2f}" for each in ratios)]
