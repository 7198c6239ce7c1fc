"""What the tenant context costs a hop: pairs, from nothing to the whole mesh.

One request is under way at a time, on idle cores, so latencies are work and wake-ups, not queues.
The variants of one bare responder (`benchmarks.hops`) are held against the same without headers,
what the mesh's own client carries (`benchmarks.carry`) against the same without it, a routed
request against a bare forwarder and responder. Each difference is the median of the differences of
many pairs of short blocks, with a bootstrap interval; the A/A controls say how far from nothing a
difference is that means nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import carry, hops, machine
from benchmarks.client import TRACE, Stream, body
from benchmarks.mesh import UNLIMITED, Mesh, mesh, nats_server, python
from benchmarks.pairs import Done, Job
from benchmarks.stats import bootstrap, spread
from tenantry.wire import headers

_REQUESTS = 30
"""In a block."""
_MICROSECONDS = 1e6

TWO_HOPS, OWN = "two hops", "own plain"
BASES = {
    **dict.fromkeys(("again", "opaque", "unsigned", "signed", "fresh"), "plain"),
    **dict.fromkeys(("own again", "own context", "own traced"), OWN),
    **dict.fromkeys(("two hops again", "routed"), TWO_HOPS),
}
"""What each variant is held against."""
_TEXTS = hops.VARIANTS | {
    OWN: "a forwarder and a responder on the mesh's own client, no headers",
    "own again": "the same once more: the A/A control",
    "own context": "the first puts a signed context there, the second verifies it: one hop",
    "own traced": "with a trace, too",
    TWO_HOPS: "a bare forwarder and a responder; the client sends a trace",
    "two hops again": "the same once more: the A/A control",
    "routed": "through the router, to a worker of Tenantry: two hops too",
}


@dataclass(slots=True)
class Results:
    """Medians of the blocks, seconds, by variant and repetition."""

    medians: dict[str, list[float]] = field(default_factory=dict)

    def differences(self, variant: str) -> list[float]:
        """To what it is held against, in each repetition, µs."""
        pairs = zip(self.medians[variant], self.medians[BASES[variant]], strict=True)
        return [(one - base) * _MICROSECONDS for one, base in pairs]


async def run(options: argparse.Namespace, console: Console, folder: Path) -> Results:
    """All pairs; the first repetition is a warm-up and not counted."""
    seed = os.urandom(32)
    async with (
        nats_server(folder) as (url, _),
        python("benchmarks.hops", url, seed.hex()),
        python("benchmarks.carry", "forward", url, seed.hex()),
        python("benchmarks.carry", "respond", url, seed.hex()),
        python("benchmarks.peers.bare", "forward", url),
        python("benchmarks.peers.bare", "respond", url),
        mesh(folder, "benchmarks.echo", {"acme": UNLIMITED}) as running,
        python("benchmarks.pairs", cores=machine.LOAD_CORES) as load,
    ):
        assert load.stdin is not None
        assert load.stdout is not None
        job = Job(
            variants=variants(url, running, hops.mint(seed)),
            repetitions=options.pairs,
            requests=_REQUESTS,
        )
        load.stdin.write(msgspec.json.encode(job) + b"\n")
        await load.stdin.drain()
        async with asyncio.timeout(60 + options.pairs):
            done = msgspec.json.decode(await load.stdout.readline(), type=Done)
    console.print("propagation: done")
    return Results(done.medians)


def variants(url: str, running: Mesh, token: str) -> list[Stream]:
    """What the client sends in each."""
    stamped = TRACE | {headers.CONTEXT: token}
    bare = {
        name: ({} if name in {"plain", "again"} else stamped, f"{name}.acme.bench.echo")
        for name in hops.VARIANTS
    }
    bare |= {f"own {name}": ({}, f"carry.{name}.acme.bench.echo") for name in carry.VARIANTS}
    bare["own again"] = bare[OWN]
    bare |= dict.fromkeys((TWO_HOPS, "two hops again"), (TRACE, "edge.acme.bench.echo"))
    return [
        *(
            Stream(name=name, url=url, subject=subject, body=body(), headers=sent)
            for name, (sent, subject) in bare.items()
        ),
        Stream(
            name="routed",
            url=running.url,
            subject="tenant.acme.bench.echo",
            body=body(),
            headers=TRACE,
            creds=str(running.creds["acme"]),
            inbox="_INBOX.acme",
        ),
    ]


def report(results: Results, options: argparse.Namespace, console: Console) -> None:
    """Print each difference with the interval that it is in."""
    table = Table("one at a time, µs", "p50", "difference", "95 % interval", "a hop", "what it is")
    for name, medians in results.medians.items():
        row = [name, f"{spread([each * _MICROSECONDS for each in medians]):.0f}"]
        if name in BASES:
            found = bootstrap(results.differences(name))
            hop = found.median / (2 if BASES[name] == TWO_HOPS else 1)
            interval = f"{found.low:+.1f} to {found.high:+.1f}"
            row += [f"{found.median:+.1f}", interval, f"{hop:+.1f}"]
        else:
            row += ["", "", ""]
        table.add_row(*row, _TEXTS[name])
    console.print(table)
    console.print(
        f"{options.pairs} pairs of blocks of {_REQUESTS} requests, in random order; differences of "
        "the blocks' medians to `plain`, `own plain` and `two hops`; bootstrap of their median"
    )
