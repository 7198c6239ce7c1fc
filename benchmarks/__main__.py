"""`make bench`: tenancy against bare nats-py, as ratios of one run.

python -m benchmarks [requests|replay|limits|flood|growth|scale] [--rounds 5] [--seconds 3]
                     [--json FILE] [--plots DIR] [--in-flight 64] [--messages 20000] [--quick]

A routed request against a forwarder and a responder; a replay against an ordered consumer, and
what other tenants notice of it; decisions of the limiter, alone and with leases, against a call a
message. All on real servers, in processes of their own; rounds alternate. CPU per message is what
the operating system charged each process.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import nats
import uvloop
from nats.aio.client import Client
from rich.console import Console
from rich.table import Table

from benchmarks import flood, growth, limits, machine, plots, replay, scale
from benchmarks.load import Round, measure
from benchmarks.mesh import UNLIMITED, mesh, nats_server, python


@asynccontextmanager
async def bare(folder: Path) -> AsyncIterator[tuple[Client, str, dict[str, int]]]:
    """A plain server, a forwarder, a responder, and a client of theirs."""
    async with (
        nats_server(folder) as (url, server),
        python("benchmarks.bare", "forward", url) as forwarder,
        python("benchmarks.bare", "respond", url) as responder,
    ):
        client = await nats.connect(url)
        pids = {"server": server, "router": forwarder.pid, "worker": responder.pid}
        yield client, "edge.acme.bench.echo", pids
        await client.close()


@asynccontextmanager
async def routed(folder: Path) -> AsyncIterator[tuple[Client, str, dict[str, int]]]:
    """A mesh with one tenant, and a client of its own."""
    async with mesh(folder, "benchmarks.echo", {"acme": UNLIMITED}) as running:
        client = await nats.connect(
            running.url,
            user_credentials=str(running.creds["acme"]),
            inbox_prefix="_INBOX.acme",
        )
        yield client, "tenant.acme.bench.echo", running.pids
        await client.close()


async def run(options: argparse.Namespace, console: Console) -> dict[str, list[Round]]:
    """All rounds of both sides, alternating; the first of each is a warm-up and not counted."""
    rounds: dict[str, list[Round]] = {"bare": [], "routed": []}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tenantry-bench-")))
        sides = {
            "bare": await stack.enter_async_context(bare(folder)),
            "routed": await stack.enter_async_context(routed(folder)),
        }
        for number in range(options.rounds + 1):
            for side, (client, subject, pids) in sides.items():
                seconds = options.seconds if number else min(1.0, options.seconds)
                result = await measure(
                    client, subject, pids, seconds=seconds, in_flight=options.in_flight
                )
                if number:
                    rounds[side].append(result)
                    console.print(f"round {number} {side:<7} {result.rate:8.0f} answers/s")
    return rounds


def figures(rounds: list[Round]) -> dict[str, float]:
    """Medians over the rounds."""
    return {
        "answers per second": median(r.rate for r in rounds),
        "latency p50, ms": median(r.p50 for r in rounds) * 1e3,
        "latency p99, ms": median(r.p99 for r in rounds) * 1e3,
        "CPU per message, router, µs": median(r.per_message("router") for r in rounds),
        "CPU per message, worker, µs": median(r.per_message("worker") for r in rounds),
        "CPU per message, nats-server, µs": median(r.per_message("server") for r in rounds),
    }


def report(sides: dict[str, list[Round]], options: argparse.Namespace, console: Console) -> None:
    """Print the medians."""
    bare_side, routed_side = figures(sides["bare"]), figures(sides["routed"])
    table = Table("medians", "bare nats-py", "Tenantry", "ratio")
    for name, floor in bare_side.items():
        ours = routed_side[name]
        table.add_row(name, f"{floor:.1f}", f"{ours:.1f}", f"{ours / floor:.2f}")
    console.print(table)
    console.print(
        f"Python {platform.python_version()}, {options.rounds} rounds of {options.seconds:g} s, "
        f"{options.in_flight} in flight; both sides share this machine's cores with their load"
    )


def _sizes(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """More tenants, then more processes."""
    saved = dict[str, Any]()
    machine.pin_self()
    if options.part in (None, "growth"):
        with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as folder:
            grown = uvloop.run(growth.run(options, console, Path(folder)))
        growth.report(grown, options, console)
        saved["growth"] = asdict(grown)
        if options.plots is not None:
            for path in plots.draw(grown, options.plots):
                console.print(f"growth: plotted {path}")
    if options.part in (None, "scale"):
        with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as folder:
            scaled = uvloop.run(scale.run(options, console, Path(folder)))
        scale.report(scaled, options, console)
        saved["scale"] = asdict(scaled)
    return saved


def main() -> None:
    """Measure, print tables, and save the figures where asked to."""
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "part",
        nargs="?",
        choices=("requests", "replay", "limits", "flood", "growth", "scale"),
        help="only this part",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round or window")
    parser.add_argument("--in-flight", type=int, default=64, help="requests under way")
    parser.add_argument("--messages", type=int, default=20_000, help="of the tenant replayed")
    parser.add_argument("--json", type=Path, help="save every round here")
    parser.add_argument(
        "--onboard", type=int, help="tenants through the control plane (10000; --quick: 200)"
    )
    parser.add_argument("--plots", type=Path, help="save plots of `growth` here, as PNG")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    options = parser.parse_args()
    if options.onboard is None:
        options.onboard = 200 if options.quick else 10_000
    console, saved = Console(highlight=False), dict[str, Any]()
    if options.part in (None, "requests"):
        sides = uvloop.run(run(options, console))
        report(sides, options, console)
        saved |= {side: [asdict(r) for r in results] for side, results in sides.items()}
    if options.part in (None, "replay"):
        with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as folder:
            results = uvloop.run(replay.run(options, console, Path(folder)))
        replay.report(results, options, console)
        saved["replay"] = asdict(results)
    if options.part in (None, "limits"):
        measured = limits.main(options, console)
        limits.report(measured, console)
        saved["limits"] = asdict(measured)
    if options.part in (None, "flood"):
        with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as folder:
            floods = uvloop.run(flood.run(options, console, Path(folder)))
        flood.report(floods, options, console)
        saved["flood"] = asdict(floods)
    saved |= _sizes(options, console)
    if options.json is not None:
        options.json.write_text(json.dumps(saved, indent=2))


if __name__ == "__main__":
    main()
