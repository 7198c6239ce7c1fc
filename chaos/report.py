"""What a run says at its end: as text for people, or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chaos.oracle import Finding

_SHOWN = 12


@dataclass(kw_only=True)
class Report:
    """Everything that is worth to know of a run."""

    command: str
    """How to repeat it."""
    seed: int
    plain: bool
    seconds: float
    settled: float | None
    """How long it took after the faults until nothing was left to do; None if it never was."""
    folder: str
    """Where logs and streams are, if they were kept."""
    failures: dict[str, int]
    """Publishes that were not acknowledged and came again, by what came instead."""
    faults: dict[str, int]
    figures: dict[str, int]
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether it went as it must: no findings, or some where there must be some."""
        return bool(self.findings) == self.plain

    def as_json(self) -> str:
        """One object; findings as `{kind, tenant, what}`."""
        body: dict[str, Any] = asdict(self)
        body["findings"] = [finding._asdict() for finding in self.findings]
        return json.dumps({**body, "good": self.good}, indent=2)

    def show(self, console: Console) -> None:
        """As text."""
        figures = Table(title=f"chaos, seed {self.seed}", show_header=False)
        took = "never" if self.settled is None else f"{self.settled:.1f} s"
        rows: list[tuple[str, Any]] = [
            ("failed publishes", sum(self.failures.values())),
            *self.figures.items(),
        ]
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        rows += [("faults", faults or "none"), ("settled after", took)]
        rows += [("findings", len(self.findings))]
        for name, value in rows:
            figures.add_row(name, str(value))
        console.print(figures)
        shown: Counter[str] = Counter()
        for finding in self.findings:
            shown[finding.kind] += 1
            if shown[finding.kind] <= _SHOWN:
                console.print(f"  {escape(f'{finding.kind}: {finding.tenant} {finding.what}')}")
        for kind, count in shown.items():
            console.print(f"{count} x {kind}")
        if self.plain:
            console.print("The plain worker has faults, as it must." if self.good else _BLIND)
        if not self.good:
            console.print(f"Repeat it:  {escape(self.command)}", soft_wrap=True)
        if self.folder:
            console.print(f"Kept: {escape(self.folder)}", soft_wrap=True)


_BLIND = "The oracle found nothing wrong with the plain worker: then it proves nothing."
