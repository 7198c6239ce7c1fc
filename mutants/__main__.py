"""`make mutants`: small wrong changes to the isolation code, each of which a test must notice.

python -m mutants [NAME...] [--jobs 2] [--list] [--json FILE]

Each mutant is applied to a copy of the project, and the tests that it names run against the copy.
First they run without a change: they have to pass. A mutant that survives is a missing test; one
that is broken proves nothing, as the tests could not even begin. They name single tests: all
together take about six minutes with two at a time.

Exit code 0: all killed; 1: some survived, are broken or stale; 2: called wrongly.

examples:
  python -m mutants --list
  python -m mutants reply-unchecked reply-by-prefix
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mutants.mutant import Mutant, Stale, load
from mutants.trial import Copy, Outcome, Verdict


def main(arguments: list[str]) -> int:
    """Try them, tell each verdict as it comes, and sum up."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    mutants = load()
    if unknown := set(options.names) - {each.name for each in mutants}:
        console.print(f"mutants: none is called {', '.join(sorted(unknown))}; see --list")
        return 2
    chosen = [each for each in mutants if not options.names or each.name in options.names]
    if options.list:
        console.print(_listing(chosen))
        return 0
    began = time.monotonic()
    outcomes = _try_all(chosen, options.jobs, console)
    if options.json:
        told = {name: {"verdict": o.verdict, "said": o.said} for name, o in outcomes.items()}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    killed = sum(each.verdict is Verdict.KILLED for each in outcomes.values())
    minutes = (time.monotonic() - began) / 60
    console.print(f"{killed} of {len(outcomes)} mutants killed, in {minutes:.1f} minutes")
    return 0 if killed == len(outcomes) else 1


def _try_all(chosen: list[Mutant], jobs: int, console: Console) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="tenantry-mutants-") as folder:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for number in range(jobs):
            copies.put(Copy(Path(folder) / str(number)))
        tests = tuple(sorted({test for each in chosen for test in each.tests}))
        console.print(f"{len(chosen)} mutants; first their tests as they are: {len(tests)} of them")
        unchanged = copies.get()
        if (plain := unchanged.test(tests)).verdict is not Verdict.SURVIVED:
            console.print(f"[bold red]without a change, a test fails already:[/] {plain.said}")
            return {"(no change)": Outcome(Verdict.BROKEN, plain.said)}
        copies.put(unchanged)

        def attempt(mutant: Mutant) -> Outcome:
            copy = copies.get()
            try:
                return copy.try_out(mutant)
            except Stale as stale:
                return Outcome(Verdict.BROKEN, str(stale))
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(jobs) as pool:
            for mutant, outcome in zip(chosen, pool.map(attempt, chosen), strict=True):
                outcomes[mutant.name] = outcome
                style = "green" if outcome.verdict is Verdict.KILLED else "bold red"
                console.print(f"[{style}]{outcome.verdict:9}[/] {mutant.name:34} {outcome.said}")
    return outcomes


def _listing(mutants: list[Mutant]) -> Table:
    table = Table("mutant", "in", "what would be open", box=None, pad_edge=False)
    for each in mutants:
        table.add_row(each.name, each.file, each.why)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--list", action="store_true", help="list them, try none")
    parser.add_argument("--json", type=Path, help="save the verdicts here")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
