"""`make chaos`: a real mesh under random faults, then an oracle's verdict.

Examples:
    python -m chaos                                     one minute, 20 tenants, a new seed
    python -m chaos --seconds 600 --tenants 50 --seed 7
    python -m chaos --nodes 3                           on a cluster that keeps all three times
    python -m chaos --plain                             the counter-proof: must have findings
    python -m chaos --seed 7 --faults suspend,kill      only these, to find a cause
    python -m chaos --seed 7 --keep /tmp/seed-7         keep logs, streams and facts

Exit code 0: no findings (with --plain: some), 1: otherwise, 2: called wrongly.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import tempfile
import traceback
from pathlib import Path

import uvloop
from rich.console import Console

from chaos import run as running
from chaos.faults import KINDS, NONE
from chaos.report import Report
from chaos.run import Options
from chaos.world import Size
from tenantry.cli import streams


def main(arguments: list[str]) -> int:
    """Run once, and say what came of it."""
    given = _parser().parse_args(arguments)
    errors = Console(stderr=True)
    options = Options(
        seed=given.seed if given.seed is not None else random.randrange(1_000_000),
        seconds=given.seconds,
        size=Size(**{field.name: getattr(given, field.name) for field in dataclasses.fields(Size)}),
        rate=given.rate,
        plain=given.plain,
        kinds=tuple(given.faults.split(",")) if given.faults else (),
        keep=given.keep,
    )
    if unknown := set(options.kinds) - {*KINDS, NONE}:
        errors.print(f"chaos: no such faults: {', '.join(unknown)} (there are: {', '.join(KINDS)})")
        return 2
    errors.print(f"seed {options.seed}: {options.command()}", soft_wrap=True, highlight=False)
    try:
        report = _run(options, errors)
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001  (whatever broke, how to repeat it must be said)
        traceback.print_exc()
        errors.print(f"chaos broke down; repeat it:  {options.command()}", soft_wrap=True)
        return 1
    streams.prepare()
    if given.output == "json":
        print(report.as_json())
    else:
        report.show(Console())
    return 0 if report.good else 1


def _run(options: Options, errors: Console) -> Report:
    if options.keep is not None:
        options.keep.mkdir(parents=True)
        report = _in(options, options.keep, errors)
        report.folder = str(options.keep)
        return report
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        return _in(options, Path(folder), errors)


def _in(options: Options, folder: Path, errors: Console) -> Report:
    if not errors.is_terminal:
        return uvloop.run(running.run(options, folder.resolve(), lambda _: None))
    with errors.status("starting") as status:
        return uvloop.run(running.run(options, folder.resolve(), status.update))


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = Size()
    add = parser.add_argument
    add("--seconds", type=float, default=60.0, help="how long faults happen (default: 60)")
    add("--seed", type=int, help="of faults and messages (default: a random one)")
    add("--tenants", type=int, default=size.tenants, help=f"default: {size.tenants}")
    add("--producers", type=int, default=size.producers, help="of each tenant, default: 2")
    add("--routers", type=int, default=size.routers, help=f"default: {size.routers}")
    add("--replicas", type=int, default=size.replicas, help="of the services, default: 3")
    add("--nodes", type=int, choices=(1, 3), default=size.nodes, help="NATS servers, default: 1")
    add("--rate", type=float, default=180.0, help="commands a second in all (default: 180)")
    kinds = ",".join(KINDS)
    add("--faults", default="", metavar="KINDS", help=f"only these, of {kinds}; or {NONE}")
    add("--plain", action="store_true", help="a plain nats-py worker in the mesh's place")
    add("--keep", type=Path, metavar="DIR", help="keep logs, streams and facts in a new folder")
    add("-o", "--output", choices=("text", "json"), default="text")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
