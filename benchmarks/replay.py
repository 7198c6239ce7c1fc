"""A replay against a bare ordered consumer, and what the other tenants notice of one.

Both read the same messages of one tenant from the same server, in turns; the replay's handler and
the consumer's callback do nothing. Rates count from asking to the end, so with all set-up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import nats
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.history import BODY
from benchmarks.mesh import UNLIMITED, Mesh, ask, mesh, python
from benchmarks.population import unbound
from tenantry import subjects
from tenantry.bus import Bus
from tenantry.cli.replay import RATE
from tenantry.control import Control
from tenantry.messages import Replay
from tenantry.operator import OperatorHome
from tenantry.replays import Replays
from tenantry.streams import JOURNAL

_TENANT = "history"
_OTHERS = ("corner", "market")
_REQUESTS = 200.0
_IN_FLIGHT = 200
_REST = 0.5


@dataclass(slots=True)
class Results:
    """Of each round; rates in messages a second, CPU in µs a message, latencies in seconds."""

    bare: list[float] = field(default_factory=list)
    replay: list[float] = field(default_factory=list)
    bare_cpu: list[float] = field(default_factory=list)
    replay_cpu: list[float] = field(default_factory=list)
    live_cpu: float = 0.0
    """The worker's, for messages as they come."""
    quiet: list[tuple[float, float]] = field(default_factory=list)
    """p50 and p99 of the others in windows without a replay."""
    busy: list[tuple[float, float]] = field(default_factory=list)
    """And in windows with one."""


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All rounds; the first of each kind is a warm-up and not counted."""
    results = Results()
    async with mesh(
        folder, "benchmarks.history", dict.fromkeys((_TENANT, *_OTHERS), UNLIMITED)
    ) as running:
        results.live_cpu = await _fill(running, options.messages)
        control = await Control.connect(running.url, creds=running.control)
        async with control:
            await _rates(options, console, running, control.bus, results)
            await _others(options, console, running, control.bus, results)
    return results


async def _fill(running: Mesh, messages: int) -> float:
    """Give the tenant its history, and wait until it has been handled: CPU µs a message."""
    client = await nats.connect(
        running.url,
        user_credentials=str(running.creds[_TENANT]),
        inbox_prefix=f"_INBOX.{_TENANT}",
    )
    js, left = client.jetstream(timeout=30), iter(range(messages))
    worker = psutil.Process(running.pids["worker"])
    before = _cpu(worker)

    async def publish() -> None:
        for _ in left:
            await js.publish(f"tenant.{_TENANT}.history.take", BODY)

    await asyncio.gather(*(publish() for _ in range(_IN_FLIGHT)))
    await client.close()
    used = _cpu(worker)
    while (now := await _later(worker)) - used > 0.1:  # it still works them off
        used = now
    return (used - before) / messages * 1e6


async def _later(process: psutil.Process) -> float:
    await asyncio.sleep(1.0)
    return _cpu(process)


async def _rates(
    options: argparse.Namespace, console: Console, running: Mesh, bus: Bus, results: Results
) -> None:
    partition = subjects.partition(_TENANT)
    subject = f"journal.{partition}.{_TENANT}.*.*"
    creds = running.state / "ordered.creds"
    creds.write_text(unbound(OperatorHome.load(running.state / "operator")))
    arguments = (running.url, str(creds), "_MESH.ordered", JOURNAL, subject)
    worker, replays = psutil.Process(running.pids["worker"]), Replays(bus)
    count = options.messages
    async with python("benchmarks.ordered", *arguments, str(count)) as ordered:
        for number in range(options.rounds + 1):
            seconds, used = json.loads(await ask(ordered))
            before = _cpu(worker)
            done = await _replayed(replays)
            if done.handled != count or done.ended is None:
                raise RuntimeError(f"{done.handled} of {count} handled: {done}")
            spent = _cpu(worker) - before
            if number:
                results.bare.append(count / seconds)
                results.replay.append(count / (done.ended - done.asked))
                results.bare_cpu.append(used / count * 1e6)
                results.replay_cpu.append(spent / count * 1e6)
                console.print(
                    f"round {number} ordered consumer {results.bare[-1]:6.0f} messages/s, "
                    f"replay {results.replay[-1]:6.0f}"
                )
            await asyncio.sleep(_REST)


async def _replayed(replays: Replays) -> Replay:
    asked = await replays.ask(_TENANT, "history", by="benchmark")
    return [each async for each in replays.follow(asked, frozenset())][-1]


async def _others(
    options: argparse.Namespace, console: Console, running: Mesh, bus: Bus, results: Results
) -> None:
    """The other tenants' latencies at a fixed rate, in windows with and without a replay."""
    replays, windows = Replays(bus), []
    tenants = (f"{tenant}={running.creds[tenant]}" for tenant in _OTHERS)
    arguments = (running.url, "history.ask", str(_REQUESTS), *tenants)
    async with python("benchmarks.steady", *arguments, cores=machine.LOAD_CORES) as load:
        await asyncio.sleep(options.seconds)
        for _ in range(options.rounds + 1):
            begin = time.time()
            await asyncio.sleep(options.seconds)
            asked = await replays.ask(_TENANT, "history", by="benchmark", rate=RATE)
            async for _ in replays.follow(asked, frozenset({"running"})):
                pass
            busy = time.time()
            await asyncio.sleep(options.seconds)
            await replays.cancel(_TENANT, "history")
            last = [each async for each in replays.follow(asked, frozenset())][-1]
            if last.state != "cancelled":
                raise RuntimeError(f"the replay was too short: {last.state}, give more --messages")
            windows.append((begin, busy))
            await asyncio.sleep(_REST)
        found = json.loads(await ask(load))
    for number, starts in enumerate(windows):
        quiet, busy_figures = (_latencies(found, at, options.seconds) for at in starts)
        if number:
            results.quiet.append(quiet)
            results.busy.append(busy_figures)
            console.print(
                f"round {number} others' p99 {quiet[1] * 1e3:5.1f} ms, "
                f"during a replay {busy_figures[1] * 1e3:5.1f} ms"
            )


def _latencies(
    found: list[tuple[float, float]], begin: float, seconds: float
) -> tuple[float, float]:
    some = sorted(latency for due, latency in found if begin <= due < begin + seconds)
    return some[len(some) // 2], some[int(len(some) * 0.99)]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print the medians."""
    rates = Table("medians", "ordered consumer", "replay", "ratio")
    rows = (
        ("messages per second", results.bare, results.replay),
        ("CPU per message, reader, µs", results.bare_cpu, results.replay_cpu),
    )
    for name, bare, ours in rows:
        rates.add_row(name, *_ratio(median(bare), median(ours)))
    console.print(rates)
    others = Table("medians", "no replay", f"replay at {RATE:g}/s", "ratio")
    for index, name in enumerate(("others' p50, ms", "others' p99, ms")):
        before, during = (
            median(window[index] * 1e3 for window in windows)
            for windows in (results.quiet, results.busy)
        )
        others.add_row(name, *_ratio(before, during))
    console.print(others)
    console.print(
        f"{options.rounds} rounds, {options.messages} messages of {len(BODY)} bytes; others: "
        f"{_REQUESTS:g} requests/s of {len(_OTHERS)} tenants to the worker that replays, windows "
        f"of {options.seconds:g} s; live messages cost the worker {results.live_cpu:.0f} µs"
    )


def _ratio(before: float, after: float) -> tuple[str, str, str]:
    return f"{before:.1f}", f"{after:.1f}", f"{after / before:.2f}"
