"""The wheel whose hot paths are compiled does what the other one does."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from tests.acceptance.outside import run

ROOT = Path(__file__).parents[2]
SUITES = (
    "tests/unit/bus/test_protocol.py",
    "tests/unit/core",
    "tests/unit/fairness",
    "tests/unit/router",
    "tests/unit/service",
    "tests/acceptance/test_newcomer.py",
)
"""Those of what is compiled, and one through the whole mesh."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("cc") is None and "CI" not in os.environ, reason="there is no C compiler"
    ),
]


def compiled(*command: str) -> str:
    """What a command prints with the compiled modules."""
    return run("bash", ".ci/compiled", sys.executable, *command, cwd=ROOT)


def modules() -> list[str]:
    """What is to be compiled, as names to import."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    paths = [path.removeprefix("workers/") for path in wheel["hooks"]["custom"]["compiled"]]
    return [path.removesuffix(".py").replace("/", ".") for path in paths]


def test_each_of_the_modules_is_compiled() -> None:
    names = modules()
    lines = [f"import {name}; print({name}.__file__)" for name in names]
    files = compiled("-c", "\n".join(lines)).split()
    assert [Path(file).name.endswith((".so", ".pyd")) for file in files] == [True] * len(names)


def test_it_says_that_it_is_compiled() -> None:
    assert compiled("-m", "tenantry", "--version").endswith("(compiled)\n")


def test_it_passes_the_tests_of_what_is_compiled() -> None:
    assert " passed" in compiled("-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITES)
