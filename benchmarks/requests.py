"""A routed request against its floor and its peers: a small typed message, answered with itself.

All sides run at once and take turns, so what disturbs one disturbs all. In each round every side
first does as much as it can with so many requests under way (a closed loop: a ceiling), then meets
a rate that it can do (an open loop: latencies, and CPU a message, since at the ceiling a core that
is never idle makes each message cheaper). All but the mesh share one plain server.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import nats
from rich.console import Console
from rich.table import Table

from benchmarks import sides
from benchmarks.client import Stream, body
from benchmarks.echo import Echo
from benchmarks.mesh import UNLIMITED, generator, mesh, nats_server, python
from benchmarks.peers import checks
from benchmarks.sides import Sample, Side
from benchmarks.stats import Spread, spread

FLOOR, ROUTED, CHECKED = "bare, two hops", "Tenantry", "FastStream, checks"
_MICROSECONDS = 1e6


@dataclass(slots=True)
class Results:
    """Samples of each side, by round."""

    ceiling: dict[str, list[Sample]] = field(default_factory=dict)
    paced: dict[str, list[Sample]] = field(default_factory=dict)


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All rounds; the first is a warm-up and not counted."""
    results = Results()
    async with AsyncExitStack() as stack:
        every = [
            *await stack.enter_async_context(peers(folder)),
            await stack.enter_async_context(routed(folder)),
        ]
        load = await stack.enter_async_context(generator())
        for side in every:
            await check(side)
        for number in range(int(options.quick), options.rounds + 1):
            seconds = options.seconds if number else min(1.0, options.seconds)
            # Each round begins with another side, so that none is always first.
            for side in every[number % len(every) :] + every[: number % len(every)]:
                most = await sides.ceiling(side, load, seconds, options.in_flight)
                paced = await sides.paced(side, load, 2 * seconds, options.rate)
                if number:
                    results.ceiling.setdefault(side.name, []).append(most)
                    results.paced.setdefault(side.name, []).append(paced)
                    console.print(f"round {number} {side.name:<20} {most.rate:8.0f} answers/s")
    return results


async def check(side: Side) -> None:
    """Hold that it answers with what it was asked, or its figures mean nothing."""
    stream = side.stream(0.0, 1)
    client = await nats.connect(
        stream.url, user_credentials=stream.creds or None, inbox_prefix=stream.inbox
    )
    asked, headers = stream.body.encode(), dict(stream.headers)
    async with asyncio.timeout(10):
        while True:
            try:
                answer = await client.request(stream.subject, asked, timeout=5, headers=headers)
                break
            except nats.errors.NoRespondersError:  # its subscription is still on its way
                await asyncio.sleep(0.05)
    await client.close()
    decode = msgspec.json.Decoder(Echo).decode
    if decode(answer.data) != decode(asked):
        raise RuntimeError(f"{side.name} answers with something else: {answer.data!r}")


@asynccontextmanager
async def peers(folder: Path) -> AsyncIterator[list[Side]]:
    """A plain server, and all that run on it."""
    async with AsyncExitStack() as stack:
        url, server = await stack.enter_async_context(nats_server(folder))

        every = [
            ("bare", "alone"),
            ("bare", "forward"),
            ("bare", "respond"),
            ("micro",),
            ("fast", "plain"),
            ("fast", "depends"),
            ("fast", "checked"),
        ]
        started = [python(f"benchmarks.peers.{module}", *role, url) for module, *role in every]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(stack.enter_async_context(one)) for one in started]
        alone, forward, respond, micro, plain, depends, checked = (
            one.result().pid for one in tasks
        )

        def side(name: str, subject: str, headers: dict[str, str], **pids: int) -> Side:
            return Side(name, plain_stream(name, url, subject, headers), {"server": server} | pids)

        token = {checks.HEADER: checks.token("acme")}
        yield [
            side("bare, one hop", "alone.acme", {}, worker=alone),
            side(FLOOR, "edge.acme", {}, router=forward, worker=respond),
            side("nats.micro", "micro.acme", {}, worker=micro),
            side("FastStream", "fast.acme", {}, worker=plain),
            side("FastStream, Depends", "depends.acme", token, worker=depends),
            side(CHECKED, "checked.acme", token, worker=checked),
        ]


def plain_stream(
    name: str, url: str, tenant: str, headers: dict[str, str]
) -> Callable[[float, int], Stream]:
    """What a client of a plain server sends."""
    return lambda rate, in_flight: Stream(
        name=name,
        url=url,
        subject=f"{tenant}.bench.echo",
        body=body(),
        headers=headers,
        rate=rate,
        in_flight=in_flight,
    )


@asynccontextmanager
async def routed(folder: Path) -> AsyncIterator[Side]:
    """A mesh with one tenant."""
    async with mesh(folder, "benchmarks.echo", {"acme": UNLIMITED}) as running:
        yield Side(
            ROUTED,
            lambda rate, in_flight: Stream(
                name=ROUTED,
                url=running.url,
                subject="tenant.acme.bench.echo",
                body=body(),
                creds=str(running.creds["acme"]),
                inbox="_INBOX.acme",
                rate=rate,
                in_flight=in_flight,
            ),
            running.pids,
        )


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print medians with their spread, and the ratios."""
    table = Table(
        "requests", "ceiling, /s", *("p50, ms", "p99, ms", "p99.9, ms"), "lost", title="answers"
    )
    for name, paced in results.paced.items():
        table.add_row(
            name,
            f"{_of(results.ceiling[name], lambda s: s.rate):.0f}",
            f"{_of(paced, lambda s: s.p50 * 1e3):.2f}",
            f"{_of(paced, lambda s: s.p99 * 1e3):.2f}",
            f"{_of(paced, lambda s: s.p999 * 1e3):.2f}",
            str(sum(sample.lost for sample in (*results.ceiling[name], *paced))),
        )
    console.print(table)
    for title, loop in (("ceiling", results.ceiling), (f"{options.rate:g}/s", results.paced)):
        table = Table("µs", "server", "router", "worker", "all", "client", title=f"CPU, {title}")
        for name, samples in loop.items():
            parts = (_cpu(samples, part) for part in ("server", "router", "worker"))
            every = _of(samples, lambda s: s.total * _MICROSECONDS)
            client = _of(samples, lambda s: s.load * _MICROSECONDS)
            table.add_row(name, *parts, f"{every:.1f}", f"{client:.1f}")
        console.print(table)
    for line in ratios(results):
        console.print(line)
    console.print(
        f"{options.rounds} rounds; medians ± half of the quartiles' distance. Ceiling: closed "
        f"loop, {options.in_flight} under way for {options.seconds:g} s. Latencies: open loop, "
        f"from when each was due, {options.rate:g}/s for {2 * options.seconds:g} s"
    )


def _of(samples: list[Sample], value: Callable[[Sample], float]) -> Spread:
    return spread([value(sample) for sample in samples])


def _of_part(part: str) -> Callable[[Sample], float]:
    return lambda sample: sample.cpu[part] * _MICROSECONDS


def _cpu(samples: list[Sample], part: str) -> str:
    return f"{_of(samples, _of_part(part)):.1f}" if part in samples[0].cpu else "-"


def ratios(results: Results) -> list[str]:
    """Of Tenantry, each round's own with the other's of that round."""
    lines = []
    for other in (FLOOR, CHECKED):
        most = _ratio(results.ceiling, other, lambda s: s.rate)
        p50 = _ratio(results.paced, other, lambda s: s.p50)
        text = f"Tenantry / {other}: ceiling {most:.2f}, p50 {p50:.2f}"
        for part in ("router", "worker"):
            if part in results.ceiling[other][0].cpu:
                cpu, calm = (
                    _ratio(loop, other, _of_part(part)) for loop in (results.ceiling, results.paced)
                )
                text += f", CPU of the {part} {cpu:.2f} at the ceiling, {calm:.2f} paced"
        lines.append(text)
    return lines


def _ratio(loop: dict[str, list[Sample]], other: str, value: Callable[[Sample], float]) -> Spread:
    pairs = zip(loop[ROUTED], loop[other], strict=True)
    return spread([value(ours) / value(theirs) for ours, theirs in pairs])
