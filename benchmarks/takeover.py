"""What stored messages notice when an instance of their service dies, leaves or joins.

Two worker processes of one service, and tenants that send commands at a steady rate through a
router. In each round nothing happens for a while; one process is killed; it is started again; it is
told to end; it is started again. A latency is from when a message was to be sent until its handler
was done with it. Of each such time the largest latency counts, of any message of any tenant.

All processes share all cores: the load is small.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import machine, noted
from benchmarks.client import tenant_name
from benchmarks.mesh import UNLIMITED
from benchmarks.parts import Parts, parts
from benchmarks.population import populate
from benchmarks.sender import Load, sender

_TENANTS = tuple(map(tenant_name, range(48)))
_RATE = 200.0
_REPLICAS = 2
_BEFORE = 0.3
"""Messages that were due so long before a fault count to it, seconds."""
_EDGE = 0.5
"""Those of the last part of a window count to nothing: the next fault may be theirs."""
_REST, _AFTER_KILL, _AFTER_TERM, _AFTER_JOIN = 2.0, 4.0, 1.5, 2.5
"""Seconds that each is watched. A takeover takes less than three."""
QUIET, KILL, TERM, JOIN = "no fault", "kill -9", "SIGTERM", "an instance joins"


@dataclass(slots=True)
class Results:
    """The largest latency of each window, seconds, by what has happened in it."""

    largest: dict[str, list[float]] = field(default_factory=dict)
    messages: int = 0
    """Stored and handled, all of them."""


@dataclass(frozen=True, slots=True)
class _Window:
    what: str
    begin: float
    end: float


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All rounds."""
    file, windows = folder / "notes", []
    with machine.all_cores():
        async with _service(folder / "mesh", file) as (found, children), sender(found) as load:
            await load.warm_up(_TENANTS[0])
            load.begin(_TENANTS, _RATE)
            for number in range(options.faults):
                windows += await _round(found, children, number % _REPLICAS, file)
                console.print(f"takeover: round {number + 1} of {options.faults}")
            messages = await _all(load, file)
    results = Results(messages=len(messages))
    for window in windows:
        largest = _largest(messages, window)
        results.largest.setdefault(window.what, []).append(largest)
    return results


@asynccontextmanager
async def _service(
    folder: Path, file: Path
) -> AsyncIterator[tuple[Parts, list[asyncio.subprocess.Process]]]:
    """A mesh with tenants, a router and the replicas."""
    async with parts(folder) as found:
        await populate(found.bus, UNLIMITED.name, 0, len(_TENANTS))
        children = [await _start(found, number, file) for number in range(_REPLICAS)]
        await found.start("router", "router")
        yield found, children


async def _start(found: Parts, number: int, file: Path) -> asyncio.subprocess.Process:
    env = {noted.FILE: str(file)}
    return await found.start(f"worker-{number}", "benchmarks.noted:service", env=env)


async def _round(
    found: Parts, children: list[asyncio.subprocess.Process], number: int, file: Path
) -> list[_Window]:
    """All that happens to one of the processes."""

    async def join() -> None:
        children[number] = await _start(found, number, file)

    async def end(*, kill: bool) -> None:
        child = children[number]
        child.kill() if kill else child.terminate()
        await child.wait()

    windows = []
    for what, act, seconds in (
        (QUIET, asyncio.sleep(0), _REST),
        (KILL, end(kill=True), _AFTER_KILL),
        (JOIN, join(), _AFTER_JOIN),
        (TERM, end(kill=False), _AFTER_TERM),
        (JOIN, join(), _AFTER_JOIN),
    ):
        begin = time.monotonic()
        await act
        await asyncio.sleep(seconds)
        windows.append(_Window(what, begin - _BEFORE, time.monotonic() - _EDGE))
    return windows


async def _all(load: Load, file: Path) -> list[noted.Noted]:
    """End the load, and wait until each message is handled."""
    sent = await load.end()
    if sent.stored < sent.sent:
        raise RuntimeError(f"{sent.sent - sent.stored} of {sent.sent} were refused: {sent.why}")
    return await noted.handled(file, sent.stored, _TENANTS)


def _largest(messages: Sequence[noted.Noted], window: _Window) -> float:
    some = (each for each in messages if window.begin <= each.due < window.end)
    return max(each.latency for each in some)


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print the median and the largest."""
    table = Table("largest latency", "times", "p50, s", "max, s", "p50 / no fault")
    rest = median(results.largest[QUIET])
    for what, largest in results.largest.items():
        table.add_row(
            what,
            f"{len(largest)}",
            f"{median(largest):.3f}",
            f"{max(largest):.3f}",
            f"{median(largest) / rest:.1f}",
        )
    console.print(table)
    console.print(
        f"{results.messages} messages of {len(_TENANTS)} tenants, {_RATE:g}/s; {_REPLICAS} worker "
        f"processes, {options.faults} rounds; from when a message was due until it was handled"
    )
