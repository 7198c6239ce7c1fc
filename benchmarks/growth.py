"""What grows with the number of tenants: CPU per message, latency, memory, start, disk.

A mesh for each number of tenants, all up at the same time, take turns at the same total rate:
uniform, so that every tenant is as likely as any other, and Zipf, as customers are. Before each
uniform window every tenant has sent once, so that it shows tenants that are active; what the first
message of one costs that never sent is a figure of its own, and `steady` puts both together for
tenants that send for hours. The tenants are written as the tenants worker would leave them; what it
takes itself is measured with some thousands through it.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.client import Crowd, Generator
from benchmarks.mesh import UNLIMITED, generator
from benchmarks.parts import Parts, parts
from benchmarks.population import populate
from tenantry.bus.jetstream import api
from tenantry.context.token import REMINT
from tenantry.control import Control

SIZES = (1, 100, 10_000, 100_000)
QUICK = (1, 100)
PROCESSES = ("router", "worker", "server")
_RATE = 2_000.0
"""Messages a second, in every mesh: well below what one core does."""
_COLD_RATE = 100.0
_COLD = 500
_IN_FLIGHT = 64
_FORGET = 130.0
"""After so long without a message a router and a worker have forgotten everybody, seconds."""


@dataclass(slots=True)
class Window:
    """One window of load: latencies in seconds, CPU in seconds a message."""

    p50: float
    p99: float
    rate: float
    lost: int
    cpu: dict[str, float]

    @property
    def total(self) -> float:
        """CPU of all processes."""
        return sum(self.cpu.values())


@dataclass(slots=True)
class Size:
    """One number of tenants. Memory by process, bytes; times in seconds."""

    tenants: int
    written: float = 0.0
    """How long it took to write the tenants into the bucket."""
    start: dict[str, float] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)
    """Memory after the start, before any message, …"""
    touched: dict[str, int] = field(default_factory=dict)
    """… when every tenant has sent, …"""
    forgotten: dict[str, int] = field(default_factory=dict)
    """… and when all of them have been silent for long."""
    cold: Window | None = None
    """The first message of tenants that never sent, a few a second."""
    first: Window | None = None
    """The same of all tenants, as fast as it goes: the CPU counts, not the latency; …"""
    again: list[Window] = field(default_factory=list)
    """… and once more, later."""
    windows: dict[str, list[Window]] = field(default_factory=dict)
    """`uniform` and `zipf`."""
    disk: dict[str, int] = field(default_factory=dict)

    def steady(self, rate: float) -> float:
        """CPU a message, seconds, of uniform tenants that send at `rate` together for hours.

        Of each some messages find that its context is too old, and pay for a new one.
        """
        known = median(window.total for window in self.windows["uniform"])
        if self.first is None or self.tenants < _COLD:
            return known
        new = self.first.total - min(window.total for window in self.again)
        return known + max(0.0, new) / (1 + REMINT * rate / self.tenants)


@dataclass(slots=True)
class Onboarding:
    """Tenants made through the control plane."""

    tenants: int
    seconds: float
    halves: tuple[float, float]
    """Of the first and of the second half: alike where the cost does not grow."""
    told: float
    """Until the journal had the event of each, too."""
    cpu: dict[str, float]
    """CPU of each process, seconds a tenant."""
    disk: dict[str, int]


@dataclass(slots=True)
class Results:
    """All of it."""

    rate: float
    sizes: list[Size] = field(default_factory=list)
    onboarding: Onboarding | None = None


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All sizes, their windows in turn; the first window of each is a warm-up."""
    results = Results(_RATE)
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(generator())
        meshes: list[tuple[Parts, Size]] = []
        for tenants in QUICK if options.quick else SIZES:
            found = await stack.enter_async_context(parts(folder / str(tenants)))
            size = await _grow(found, tenants, load)
            meshes.append((found, size))
            results.sizes.append(size)
            console.print(f"growth: {tenants} tenants are there")
        for number in range(options.rounds + 1):
            for found, size in meshes:
                await _round(found, size, load, options.seconds, counted=number > 0)
            if number:
                console.print(f"growth: round {number}")
        if not options.quick:
            await _forget(meshes, load)
    results.onboarding = await _onboard(folder / "onboard", options.onboard)
    return results


async def _grow(found: Parts, tenants: int, load: Generator) -> Size:
    size = Size(tenants)
    size.written = await populate(found.bus, UNLIMITED.name, 0, tenants)
    await found.start("router", "router")
    await found.start("worker", "benchmarks.echo:service")
    size.start = dict(found.started)
    await asyncio.sleep(1.0)
    size.idle = _memory(found)
    few = min(tenants, _COLD)
    once = Crowd(tenants=few, spread="once", first=tenants - few)
    size.cold = await _window(found, load, once, few / _COLD_RATE + 2.0, rate=_COLD_RATE)
    rest = Crowd(tenants=max(1, tenants - few), spread="once")
    size.first = await _window(found, load, rest, 60.0 + tenants / 500)
    size.touched = _memory(found)
    size.disk = {name: found.disk(name) for name in ("KV_tenants", "JOURNAL")}
    return size


async def _round(
    found: Parts, size: Size, load: Generator, seconds: float, *, counted: bool
) -> None:
    for spread in ("uniform", "zipf"):
        crowd = Crowd(tenants=size.tenants, spread="zipf" if spread == "zipf" else "uniform")
        if spread == "uniform":
            once = Crowd(tenants=size.tenants, spread="once")
            again = await _window(found, load, once, 60.0 + size.tenants / 500)
            size.again.append(again)
        elif counted:
            await _window(found, load, crowd, seconds, rate=_RATE)
        window = await _window(found, load, crowd, seconds if counted else 1.0, rate=_RATE)
        if counted:
            size.windows.setdefault(spread, []).append(window)


async def _forget(meshes: list[tuple[Parts, Size]], load: Generator) -> None:
    """Be silent, then let a few new messages have them look at what they still have."""
    await asyncio.sleep(_FORGET)
    for found, size in meshes:
        await _window(found, load, Crowd(tenants=1, spread="once"), 5.0)
        await asyncio.sleep(1.0)
        size.forgotten = _memory(found)


async def _window(
    found: Parts, load: Generator, crowd: Crowd, seconds: float, *, rate: float = 0.0
) -> Window:
    before = machine.cpu(found.pids)
    in_flight = 0 if rate else _IN_FLIGHT
    stream = found.stream(crowd, rate=rate, in_flight=in_flight)
    (answers,) = (await load.run(seconds, stream)).streams
    after = machine.cpu(found.pids)
    if not answers.good:
        raise RuntimeError(f"{crowd.tenants} tenants: no good answers: {answers.outcomes}")
    return Window(
        p50=answers.latency(50),
        p99=answers.latency(99),
        rate=answers.rate,
        lost=answers.sent - answers.good,
        cpu={name: (after[name] - before[name]) / answers.good for name in after},
    )


def _memory(found: Parts) -> dict[str, int]:
    return {name: machine.memory(pid) for name, pid in found.pids.items()}


async def _onboard(folder: Path, tenants: int) -> Onboarding:
    """Many at a time, as an import of customers would; each gets its first credentials."""
    async with parts(folder) as found:
        for name, target in (("tenants", "tenants"), ("router", "router")):
            await found.start(name, target)
        control = Control(found.bus)
        names = iter([f"customer-{number:06d}" for number in range(tenants)])

        async def create(until: int) -> None:
            while len(made) < until and (name := next(names, None)) is not None:
                await control.create(name, plan=UNLIMITED.name)
                made.append(name)

        made: list[str] = []
        before, times = machine.cpu(found.pids), [time.perf_counter()]
        for until in (tenants // 2, tenants):
            async with asyncio.TaskGroup() as group:
                for _ in range(_IN_FLIGHT):
                    group.create_task(create(until))
            times.append(time.perf_counter())
        while (await api(found.bus, "STREAM.INFO.JOURNAL"))["state"]["messages"] < tenants:
            await asyncio.sleep(0.05)
        times.append(time.perf_counter())
        after = machine.cpu(found.pids)
        return Onboarding(
            tenants=tenants,
            seconds=times[2] - times[0],
            told=times[3] - times[0],
            halves=(times[1] - times[0], times[2] - times[1]),
            cpu={name: (after[name] - before[name]) / tenants for name in after},
            disk={name: found.disk(name) for name in ("KV_tenants", "JOURNAL")},
        )


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print the medians."""
    for spread in ("uniform", "zipf"):
        table = Table(
            "tenants", "p50, ms", "p99, ms", *(f"{p}, µs" for p in PROCESSES), "ratio", "steady"
        )
        one = median(w.total for w in results.sizes[0].windows[spread])
        for size in results.sizes:
            windows = size.windows[spread]
            table.add_row(
                f"{size.tenants} {spread}",
                f"{median(w.p50 for w in windows) * 1e3:.2f}",
                f"{median(w.p99 for w in windows) * 1e3:.2f}",
                *(f"{median(w.cpu[p] for w in windows) * 1e6:.1f}" for p in PROCESSES),
                f"{median(w.total for w in windows) / one:.3f}",
                f"{size.steady(results.rate) / one:.3f}" if spread == "uniform" else "",
            )
        console.print(table)
    console.print(_of_sizes(results))
    if (made := results.onboarding) is not None:
        told = ", ".join(f"{name} {cpu * 1e6:.0f} µs" for name, cpu in made.cpu.items())
        scaled = (
            ""
            if made.tenants >= 10_000
            else (f" (extrapolated to 10,000: {made.seconds * 10_000 / made.tenants:.0f} s)")
        )
        console.print(
            f"{made.tenants} tenants through the control plane, {_IN_FLIGHT} at a time: "
            f"{made.seconds:.1f} s{scaled}, halves {made.halves[0]:.1f} "
            f"and {made.halves[1]:.1f} s, "
            f"with their events {made.told:.1f} s;"
            f" CPU a tenant: {told}; KV {made.disk['KV_tenants'] / made.tenants:.0f} and journal "
            f"{made.disk['JOURNAL'] / made.tenants:.0f} bytes a tenant on disk"
        )
    console.print(
        f"{results.rate:g} messages a second over all tenants, {options.rounds} windows of "
        f"{options.seconds:g} s, sizes in turn"
    )
    if options.plots is not None:
        from benchmarks import plots  # draws these results, so it imports this module

        for path in plots.draw(results, options.plots):
            console.print(f"growth: plotted {path}")


def _of_sizes(results: Results) -> Table:
    """Bytes a tenant are over those of the first size; the rest is by size."""
    table = Table(
        *("tenants", "start router, s", "worker, s", "router idle, B", "touched", "forgotten"),
        *("worker idle, B", "touched", "forgotten", "cold p50, ms", "p99", "first, µs", "KV, B"),
    )
    for size in results.sizes:
        table.add_row(
            str(size.tenants),
            f"{size.start['router']:.2f}",
            f"{size.start['worker']:.2f}",
            *(
                each_tenant(results, size, kind, process)
                for process in ("router", "worker")
                for kind in ("idle", "touched", "forgotten")
            ),
            f"{size.cold.p50 * 1e3:.2f}" if size.cold else "",
            f"{size.cold.p99 * 1e3:.2f}" if size.cold else "",
            f"{size.first.total * 1e6:.0f}" if size.first else "",
            f"{size.disk['KV_tenants'] / size.tenants:.0f}",
        )
    return table


def each_tenant(results: Results, size: Size, kind: str, process: str) -> str:
    """Bytes a tenant; with few tenants they are less than what a process differs by itself."""
    memory, least = getattr(size, kind), results.sizes[0]
    if size.tenants < 1_000 or not memory:
        return "-"
    return f"{(memory[process] - least.idle[process]) / (size.tenants - least.tenants):.0f}"
