"""`make bench`: what tenancy costs, against bare nats-py and others, as ratios of one run.

python -m benchmarks [PART...] [--rounds 3] [--seconds 1.5] [--quick] [--json FILE]

parts:
  requests     a routed request against its floor, nats.micro and FastStream
  durable      stored commands worked off, against pull consumers and FastStream
  propagation  what the tenant context costs a hop, in pairs with bootstrap intervals
  replay       a replay against an ordered consumer, and what other tenants notice of it
  takeover     the longest wait of a stored message around a kill, an end and a join
  idle         operations of JetStream and CPU of a service without work
  backlog      what others' stored messages notice of one tenant's backlog
  limits       decisions of the limiter, alone and with leases, against a call a message
  flood        what a quiet tenant notices when another floods
  growth       from 1 to 100,000 tenants: time, memory, start, onboarding (--plots DIR draws it)
  scale        1, 2 and 4 routers and workers, beside a model of it
  all          all of these

Where none is named: requests, durable and propagation, in a few minutes. All take an hour. All on
real servers, in processes of their own. What is compared takes turns. The load and what is measured
have cores of their own, but for takeover; the load's CPU is told apart. CPU is what the operating
system charged each process.

examples:
  python -m benchmarks all --json figures.json --plots plots
  python -m benchmarks requests durable --rounds 9 --json figures.json
  python -m benchmarks all --quick   only sees that everything runs
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

import uvloop
from rich.console import Console

from benchmarks import (
    backlog,
    durable,
    flood,
    growth,
    idle,
    limits,
    machine,
    propagation,
    replay,
    requests,
    scale,
    takeover,
)


class Part(Protocol):
    """A module that measures one thing: its results are a dataclass."""

    async def run(self, options: argparse.Namespace, console: Console, folder: Path) -> Any:
        """Measure; `folder` is its own."""

    def report(self, results: Any, options: argparse.Namespace, console: Console) -> None:
        """Print tables."""


PARTS: dict[str, Part] = {
    name: cast("Part", module)
    for name, module in {
        "requests": requests,
        "durable": durable,
        "propagation": propagation,
        "replay": replay,
        "takeover": takeover,
        "idle": idle,
        "backlog": backlog,
        "limits": limits,
        "flood": flood,
        "growth": growth,
        "scale": scale,
    }.items()
}
USUAL = ("requests", "durable", "propagation")
"""What is measured where nothing is named: the mesh beside what it is built on."""
QUICK = {"rounds": 1, "seconds": 0.2, "messages": 1000, "pairs": 3, "onboard": 200, "faults": 1}
"""Enough to see that it runs, and for nothing else: one round, and no warm-up."""
_PLACES = frozenset({"json", "plots"})


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="which parts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a round or window")
    parser.add_argument("--rate", type=float, default=1500.0, help="requests/s of the open loop")
    parser.add_argument("--in-flight", type=int, default=64, help="requests under way at a ceiling")
    parser.add_argument("--messages", type=int, default=20_000, help="stored, replayed: how many")
    parser.add_argument("--pairs", type=int, default=200, help="pairs of blocks in `propagation`")
    parser.add_argument("--faults", type=int, default=30, help="rounds of faults in `takeover`")
    parser.add_argument(
        "--onboard", type=int, default=10_000, help="tenants through the control plane in `growth`"
    )
    parser.add_argument("--plots", type=Path, help="save plots of `growth` here, as PNG")
    parser.add_argument("--quick", action="store_true", help="only see that everything runs")
    parser.add_argument("--json", type=Path, help="save every round here, and the machine's shape")
    options = parser.parse_args()
    if wrong := [name for name in options.parts if name not in (*PARTS, "all")]:
        parser.error(f"no part {wrong[0]!r}: choose from {', '.join(PARTS)}, all")
    options.parts = list(PARTS) if "all" in options.parts else options.parts or list(USUAL)
    if options.quick:
        vars(options).update(QUICK)
    return options


def main() -> None:
    """Measure, print tables, and save the figures where asked to."""
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it has started, too
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    machine.pin_self()
    saved: dict[str, Any] = {
        "machine": machine.shape(),
        "options": {name: value for name, value in vars(options).items() if name not in _PLACES},
    }
    for name in options.parts:
        part = PARTS[name]
        with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as folder:
            results = uvloop.run(part.run(options, console, Path(folder)))
        part.report(results, options, console)
        saved[name] = asdict(results)
        if options.json is not None:  # after each part: a later one may fail
            options.json.write_text(json.dumps(saved, indent=2))


if __name__ == "__main__":
    main()
