"""More routers and workers on the same cores, beside what a model says of them.

The model: a message costs each stage so much CPU, a process of ours has one core at most, and all
have the cores that there are. What it needs is measured with one router and one worker; it says
what two and four do, and what stands in the way: `cores`, `router`, `worker`, or `load`, the one
process that the requests come from. Both with the load on cores of its own and with all of it on
all cores.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.client import Crowd, Done, Generator
from benchmarks.mesh import UNLIMITED, generator
from benchmarks.parts import Parts, parts
from benchmarks.population import populate

COUNTS = (1, 2, 4)
STAGES = ("router", "worker", "server")
_TENANTS = 64
_IN_FLIGHT = 256
BUSY = 0.7
"""Of a core, what a process may be given to do before its latency suffers."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One closed-loop window: messages a second, CPU in seconds a message."""

    rate: float
    cpu: dict[str, float]
    """By stage, over all its processes."""
    load: float
    """Of the generator."""


@dataclass(slots=True)
class Results:
    """Windows by number of routers and of workers, and by who has which cores."""

    cores: dict[str, int] = field(default_factory=dict)
    """How many the mesh has: `apart` from the load, or `shared` with it."""
    ceilings: dict[str, dict[int, list[Ceiling]]] = field(default_factory=dict)


class Bound(NamedTuple):
    """The most that can be, and why not more."""

    rate: float
    """Messages a second."""
    by: str


def predict(
    cpu: Mapping[str, float], load: float, *, cores: int, count: int, shared: bool
) -> Bound:
    """What `count` routers and workers do; `cpu` by stage and `load` in seconds a message."""
    total = sum(cpu.values()) + (load if shared else 0.0)
    return min(
        Bound(cores / total, "cores"),
        Bound(count / cpu["router"], "router"),
        Bound(count / cpu["worker"], "worker"),
        Bound(1 / load, "load"),
    )


def needed(cpu: Mapping[str, float], rate: float) -> dict[str, int]:
    """Processes of ours, and cores of nats-servers, for so many messages a second."""
    return {stage: ceil(rate * cpu[stage] / BUSY) for stage in STAGES}


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All counts in turn; the first window of each is a warm-up and not counted."""
    every = machine.LOAD_CORES | machine.SYSTEM_CORES
    results = Results({"apart": len(machine.SYSTEM_CORES), "shared": len(every)})
    homes = {"apart": machine.SYSTEM_CORES, "shared": every}
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(generator())
        meshes = {}
        for count in COUNTS[:2] if options.quick else COUNTS:
            meshes[count] = await stack.enter_async_context(parts(folder / f"by-{count}"))
            await _staff(meshes[count], count)
        for number in range(options.rounds + 1):
            for who, cores in homes.items():
                for count, found in meshes.items():
                    _move(found.pids.values(), cores)
                    seconds = options.seconds if number else min(1.0, options.seconds)
                    ceiling = await _ceiling(found, load, seconds)
                    if number:
                        results.ceilings.setdefault(who, {}).setdefault(count, []).append(ceiling)
            if number:
                console.print(f"scale: round {number}")
    return results


async def _staff(found: Parts, count: int) -> None:
    await populate(found.bus, UNLIMITED.name, 0, _TENANTS)
    for number in range(count):
        await found.start(f"router-{number}", "router")
        await found.start(f"worker-{number}", "benchmarks.echo:service")


def _move(pids: Iterable[int], cores: Iterable[int]) -> None:
    """All threads of these processes."""
    chosen = set(cores)
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), chosen)


async def _ceiling(found: Parts, load: Generator, seconds: float) -> Ceiling:
    stream = found.stream(Crowd(tenants=_TENANTS), in_flight=_IN_FLIGHT)
    before = machine.cpu(found.pids)
    done: Done = await load.run(seconds, stream)
    after = machine.cpu(found.pids)
    (answers,) = done.streams
    if not answers.good:
        raise RuntimeError(f"no good answers: {answers.outcomes}")
    cpu = dict.fromkeys(STAGES, 0.0)
    for name in after:
        cpu[name.partition("-")[0]] += (after[name] - before[name]) / answers.good
    return Ceiling(answers.rate, cpu, done.cpu / answers.good)


@dataclass(frozen=True, slots=True)
class Check:
    """What the model says of a count, beside what was measured."""

    who: str
    count: int
    measured: float
    predicted: Bound
    """With the CPU a message of one router and one worker, …"""
    own: Bound
    """… and with what it cost here: more where many processes find few messages each."""
    cpu: dict[str, float]
    load: float


def checks(results: Results) -> list[Check]:
    """The medians; the model knows nothing but those of one router and one worker."""
    found = []
    for who, by_count in results.ceilings.items():
        one = _median(by_count[min(by_count)])
        for count, windows in by_count.items():
            here = _median(windows)
            shared = who == "shared"
            bound, own = (
                predict(each.cpu, each.load, cores=results.cores[who], count=count, shared=shared)
                for each in (one, here)
            )
            found.append(Check(who, count, here.rate, bound, own, here.cpu, here.load))
    return found


def _median(windows: list[Ceiling]) -> Ceiling:
    return Ceiling(
        median(w.rate for w in windows),
        {stage: median(w.cpu[stage] for w in windows) for stage in STAGES},
        median(w.load for w in windows),
    )


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print the medians and the model."""
    table = Table(
        *("cores", "each", "answers/s, closed loop", "model", "limit", "to model", "to own"),
        *(f"{stage}, µs" for stage in (*STAGES, "load")),
    )
    for each in checks(results):
        table.add_row(
            f"{results.cores[each.who]} {each.who}",
            str(each.count),
            f"{each.measured:.0f}",
            f"{each.predicted.rate:.0f}",
            each.predicted.by,
            f"{each.measured / each.predicted.rate:.2f}",
            f"{each.measured / each.own.rate:.2f}",
            *(f"{each.cpu[stage] * 1e6:.1f}" for stage in STAGES),
            f"{each.load * 1e6:.1f}",
        )
    console.print(table)
    console.print(
        f"{options.rounds} windows of {options.seconds:g} s, {_IN_FLIGHT} in flight; `shared` has "
        "the load on the same cores. `to own`: measured to the model with the CPU of that row"
    )
