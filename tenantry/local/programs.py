"""Servers that others have made: which one to run, and whether it is new enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tenantry.errors import SetupError

INSTALL = "pip install 'tenantry[local]'"
"""What brings all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One kind of server."""

    names: tuple[str, ...]
    """What it may be called on the PATH; the first is what it is called here."""
    variable: str
    """Of the environment, for the path of another one."""
    option: str
    """Makes it print its version."""
    version: re.Pattern[str]
    """Its version there, in three groups."""
    minimum: tuple[int, ...]
    kind: str
    """What is said of another program: that it `is not …`."""
    reason: str = ""
    """Why an older one won't do."""

    def find(self, shipped: Iterable[Path]) -> Path:
        """The one to run: that of the variable, the first of `shipped` there is, one on the PATH.

        Raises :class:`SetupError` where there is none.
        """
        if named := os.environ.get(self.variable):
            if _runs(path := Path(named)):
                return path
            raise SetupError(
                f"{self.variable} names {named}, which is not a program", hint="correct or unset it"
            )
        for path in shipped:
            if _runs(path):
                return path
        for name in self.names:
            if found := shutil.which(name):
                return Path(found)
        raise SetupError(f"{self.names[0]} is not installed", hint=INSTALL)

    def check(self, path: Path) -> str:
        """Its version, such as `2.15.1`. Raises :class:`SetupError` where it is too old."""
        try:
            done = subprocess.run(
                [str(path), self.option], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SetupError(f"{path} does not run: {error}", hint=INSTALL) from error
        match = self.version.search(done.stdout)
        if match is None:
            raise SetupError(f"{path} is {self.kind}", hint=INSTALL)
        version = ".".join(match.groups())
        if tuple(map(int, match.groups()))[: len(self.minimum)] < self.minimum:
            least = ".".join(map(str, self.minimum))
            raise SetupError(
                f"{path} {version} is too old, {least} is needed{self.reason}",
                hint=f"{INSTALL} -U",
            )
        return version


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
