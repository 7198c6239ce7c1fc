"""What the demo shows: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tenantry.demo.checks import Check
from tenantry.demo.recovery import Recovery
from tenantry.demo.shopper import Shopper, percentile

_COLUMNS = ("sent", "answered", "limited", "unserved", "lost", "p50 ms", "p99 ms")


class Screen:
    """Prints the demo's story."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._begin = time.monotonic()

    def say(self, text: str) -> None:
        """One line of the story."""
        stamp = f"[dim]{time.monotonic() - self._begin:5.1f} s[/dim]"
        self.console.print(f"{stamp}  {text}", soft_wrap=True)

    @asynccontextmanager
    async def watching(
        self, shoppers: Sequence[Shopper], plans: Mapping[str, str]
    ) -> AsyncIterator[None]:
        """Show the tenants' figures while a block runs."""
        task = asyncio.create_task(self._watch(shoppers, plans))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, shoppers: Sequence[Shopper], plans: Mapping[str, str]) -> None:
        if not self.console.is_terminal:
            while True:
                await asyncio.sleep(3)
                for shopper in shoppers:
                    figures = zip(_COLUMNS, _figures(shopper), strict=True)
                    self.say(
                        f"{shopper.tenant:<8}"
                        + "  ".join(f"{name} {value}" for name, value in figures)
                    )
        with Live(console=self.console, refresh_per_second=5, transient=True) as live:
            while True:
                live.update(table(shoppers, plans))
                await asyncio.sleep(0.2)

    def summary(self, shoppers: Sequence[Shopper], plans: Mapping[str, str]) -> None:
        """The figures of each tenant at the end."""
        self.console.print(table(shoppers, plans))

    def recovery(self, recovery: Recovery, shoppers: Sequence[Shopper]) -> None:
        """One tenant's ledger, and how the others fared meanwhile."""
        ledger = _table(f"ledger of {recovery.tenant}", "orders", "cents")
        for name, books in (
            ("before the accident", recovery.before),
            ("corrupted", recovery.corrupted),
            ("recovered", recovery.after),
        ):
            ledger.add_row(name, *(f"{figure:,}" for figure in books))
        self.console.print(ledger)
        self.console.print(
            f"The other tenants' requests in the {recovery.window:.1f} s before the recovery, "
            "and in those of it:"
        )
        others = _table("tenant", *("before", "p50 ms", "p99 ms", "during", "p50 ms", "p99 ms"))
        spans = (recovery.quiet, recovery.busy)
        rows = {each.tenant: [each.tally.between(*span) for span in spans] for each in shoppers}
        rows["together"] = [
            [*itertools.chain(*found)] for found in zip(*rows.values(), strict=True)
        ]
        for name, windows in rows.items():
            others.add_row(name, *(figure for found in windows for figure in _latencies(found)))
        self.console.print(others)

    def verdict(self, checks: Sequence[Check]) -> None:
        """Each claim, and whether it held."""
        for check in checks:
            mark = "[green]ok[/green]  " if check.held else "[red]FAIL[/red]"
            text = f"{mark} {check.claim} [dim]({check.figures})[/dim]"
            self.console.print(text, soft_wrap=True)


def table(shoppers: Sequence[Shopper], plans: Mapping[str, str]) -> Table:
    """One row a tenant."""
    rows = _table("tenant", "plan", *_COLUMNS)
    rows.columns[1].justify = "left"
    for shopper in shoppers:
        rows.add_row(shopper.tenant, plans[shopper.tenant], *_figures(shopper))
    return rows


def _table(name: str, *columns: str) -> Table:
    rows = Table(name, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        rows.add_column(column, justify="right")
    return rows


def _latencies(found: Sequence[float]) -> tuple[str, str, str]:
    return str(len(found)), f"{percentile(found, 0.5):.1f}", f"{percentile(found, 0.99):.1f}"


def _figures(shopper: Shopper) -> tuple[str, ...]:
    tally = shopper.tally
    counts = (tally.sent, tally.answered, tally.limited, tally.unavailable, tally.lost)
    return (
        *(str(count) for count in counts),
        f"{tally.percentile(0.5):.1f}",
        f"{tally.percentile(0.99):.1f}",
    )
