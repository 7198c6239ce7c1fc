"""`make bench`: a routed request against a bare forwarder and responder, as ratios of one run.

python -m benchmarks [--rounds 5] [--seconds 3] [--in-flight 64] [--json FILE]

Both sides run on real nats-servers, in processes of their own; their rounds alternate. CPU per
message is what the operating system charged each process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median

import nats
import uvloop
from nats.aio.client import Client
from rich.console import Console
from rich.table import Table

from benchmarks.load import Round, measure
from tenantry.bus import Bucket
from tenantry.control import Control
from tenantry.local.server import find_nats_server, free_port
from tenantry.local.state import StateFolder
from tenantry.messages import Plan

ROOT = Path(__file__).parent.parent


@asynccontextmanager
async def bare(folder: Path) -> AsyncIterator[tuple[Client, str, dict[str, int]]]:
    """A plain server, a forwarder, a responder, and a client of theirs."""
    port = free_port()
    config = folder / "bare.conf"
    config.write_text(f"listen: 127.0.0.1:{port}\n")
    url = f"nats://127.0.0.1:{port}"
    with subprocess.Popen(
        [str(find_nats_server()), "-c", str(config)], stderr=subprocess.DEVNULL
    ) as server:
        try:
            await asyncio.sleep(0.5)
            async with (
                _python("benchmarks.bare", "forward", url) as forwarder,
                _python("benchmarks.bare", "respond", url) as responder,
            ):
                client = await nats.connect(url)
                pids = {"server": server.pid, "router": forwarder, "worker": responder}
                yield client, "edge.acme.bench.echo", pids
                await client.close()
        finally:
            server.terminate()


@asynccontextmanager
async def routed(folder: Path) -> AsyncIterator[tuple[Client, str, dict[str, int]]]:
    """A mesh as `tenantry up` starts it, with one tenant whose plan is no limit here."""
    state = StateFolder(folder / "state")
    arguments = ("up", "--port", "0", "--state", str(state.path), "benchmarks.echo:service")
    async with _python("tenantry", *arguments):
        running = state.running()
        if running is None:
            raise RuntimeError("the mesh did not start")
        creds = folder / "acme.creds"
        async with await Control.connect(
            running.url, creds=state.operator / "creds" / "control.creds"
        ) as control:
            plan = Plan(name="unlimited", rate=1e6, burst=1_000_000)
            await Bucket(control.bus, "plans", Plan).put(plan.name, plan)
            _, text = await control.create("acme", plan="unlimited")
        creds.write_text(text)
        pids = {}
        for child in running.children:
            for name, part in (("server", "nats"), ("router", "router"), ("worker", "echo")):
                if part in child.name and child.pid is not None:
                    pids[name] = child.pid
        client = await nats.connect(
            running.url, user_credentials=str(creds), inbox_prefix="_INBOX.acme"
        )
        yield client, "tenant.acme.bench.echo", pids
        await client.close()


@asynccontextmanager
async def _python(module: str, *arguments: str) -> AsyncIterator[int]:
    """Run a module of ours until the block ends; it is ready when it prints its first line."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(60):
            if not (await child.stdout.readline()).startswith(b"ready"):
                raise RuntimeError(f"{module} did not start")
        yield child.pid
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


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


def main() -> None:
    """Measure, print a table, and save the figures where asked to."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round")
    parser.add_argument("--in-flight", type=int, default=64, help="requests under way")
    parser.add_argument("--json", type=Path, help="save every round here")
    options = parser.parse_args()
    console = Console(highlight=False)
    rounds = uvloop.run(run(options, console))
    sides = {side: figures(results) for side, results in rounds.items()}
    table = Table("medians", "bare nats-py", "Tenantry", "ratio")
    for name, floor in sides["bare"].items():
        ours = sides["routed"][name]
        table.add_row(name, f"{floor:.1f}", f"{ours:.1f}", f"{ours / floor:.2f}")
    console.print(table)
    console.print(
        f"Python {platform.python_version()}, {options.rounds} rounds of {options.seconds:g} s, "
        f"{options.in_flight} in flight; both sides share this machine's cores with their load"
    )
    if options.json is not None:
        saved = {side: [asdict(r) for r in results] for side, results in rounds.items()}
        options.json.write_text(json.dumps(saved, indent=2))


if __name__ == "__main__":
    main()
