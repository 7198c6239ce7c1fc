"""`make hostile`: hundreds of tenants with a secret each, and attackers among them.

python -m tests.isolation.world [--tenants 200] [--seconds 20] [--seed N] [--leak]

Each tenant fills bodies, headers, ids, state, dead letters, schedules, logs and spans with its
secret. One in twenty is an attacker with good credentials who tries everything against the others,
while a router is replaced, nats-server and a worker are killed. Afterwards all that the
mesh holds, says and logs is searched: a secret outside of its tenant is a finding.

With --leak one tenant is given another's secret: the search has to find it.

Prints a report as JSON. Exit code 0: no finding (with --leak: some), 1: otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from tenantry.operator import OperatorHome
from tests.isolation.world.life import World
from tests.isolation.world.recorded import Recorded
from tests.isolation.world.search import Search
from tests.servers import WheelBackend


def main(arguments: list[str]) -> int:
    """Let one world live, search it, and print the report."""
    options = _parser().parse_args(arguments)
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="tenantry-world-") as folder:
        home = Path(folder) / "home"
        OperatorHome.create(home)
        backend = WheelBackend(home)
        backend.start()
        try:
            report = asyncio.run(_run(backend, Path(folder), options, seed))
        finally:
            backend.close()
    print(json.dumps(report, indent=2))
    return int(bool(report["findings"]) != options.leak)


async def _run(
    backend: WheelBackend, folder: Path, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    recorded = Recorded()
    world = await asyncio.to_thread(World, backend, folder, options.tenants, seed)
    try:
        await world.live(options.seconds, leak=options.leak)
        search = Search(world.canaries, world.traces)
        for customer in world.honest:
            search.kept(customer, await world.settled(customer))
        async with await world.mesh.insider("root") as root:
            await search.streams(root)
    finally:
        await world.close()
    search.heard(world.customers)
    search.logs(recorded.log.getvalue().splitlines())
    search.logs(world.crew_log.read_text().splitlines())
    search.spans(recorded.spans.get_finished_spans())
    search.metrics(recorded.points)
    return {
        "seed": seed,
        "tenants": len(world.customers),
        "attackers": len(world.attackers),
        "attempts": dict(world.attempts),
        "attempts in all": world.attempts.total(),
        "acknowledged": sum(len(each.acknowledged) for each in world.honest),
        "searched": search.read,
        "findings": sorted(set(search.findings)),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="world", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0, help="of attacks and load")
    parser.add_argument("--seed", type=int, help="of whom is attacked when")
    parser.add_argument("--leak", action="store_true", help="see that a leak would be found")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
