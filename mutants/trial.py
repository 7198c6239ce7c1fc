"""A trial: a copy of the project, one change in it, and what its tests say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mutants.mutant import Mutant

ROOT = Path(__file__).parent.parent
_PARTS = ("tenantry", "workers", "tests", "examples", "infra", "pyproject.toml", "README.md")
_PATIENCE = 300.0
"""Seconds that the tests of one mutant may take; all of them without a change: four times that."""


_WAIT = "8"
"""Seconds that a test waits for what a mutant may have prevented; where that is too short, a test
fails already without a change."""


class Verdict(StrEnum):
    """What came of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    BROKEN = "broken"
    """No test failed by what it states: the change broke the set-up, or hangs. Proves nothing."""


@dataclass(frozen=True)
class Outcome:
    """The verdict, and the test that failed, or what went wrong."""

    verdict: Verdict
    said: str = ""


class Copy:
    """A copy of the project that one mutant after the other is tried in."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        for part in _PARTS:
            source, target = ROOT / part, folder / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)

    def try_out(self, mutant: Mutant) -> Outcome:
        """Change, test, change back. Raises Stale."""
        before = mutant.apply(self._root)
        try:
            return self.test(mutant.tests, _PATIENCE)
        finally:
            (self._root / mutant.file).write_text(before, encoding="utf-8")

    def test(self, tests: tuple[str, ...], within: float = 4 * _PATIENCE) -> Outcome:
        """Run tests in the copy until the first one fails, for so many seconds at most."""
        report = self._root / "report.xml"
        report.unlink(missing_ok=True)
        # What stands first in the path wins over the installed project, in all child processes.
        path = os.pathsep.join((str(self._root), str(self._root / "workers")))
        pytest = (sys.executable, "-B", "-m", "pytest", "-x", "-q", "--tb=line")
        try:
            done = subprocess.run(
                (*pytest, "-p", "no:cacheprovider", f"--junitxml={report}", *tests),
                cwd=self._root,
                env=os.environ
                | {
                    "PYTHONPATH": path,
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "TENANTRY_TEST_PATIENCE": _WAIT,
                },
                capture_output=True,
                text=True,
                timeout=within,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(Verdict.BROKEN, f"no end within {within:g} s")
        if done.returncode == 0:
            return Outcome(Verdict.SURVIVED)
        if done.returncode == 1 and (failed := _failed(report)):
            return Outcome(Verdict.KILLED, failed)
        return Outcome(Verdict.BROKEN, _last(done.stdout + done.stderr))


def _failed(report: Path) -> str:
    """The first test that failed itself: an error while it was set up does not count."""
    for case in ET.parse(report).iter("testcase"):
        if case.find("failure") is not None:
            return f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
    return ""


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"
