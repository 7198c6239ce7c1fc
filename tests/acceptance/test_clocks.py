"""A router whose clock is off takes nothing, says so, and comes back when the clock is right."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cli import PATIENCE, SHOP, Cli, soon

pytestmark = pytest.mark.slow

SHIFTED = """
import sys, time

real, shift = time.time, open(sys.argv.pop(1))

def shifted():
    shift.seek(0)
    return real() + float(shift.read() or 0)

time.time = shifted

from tenantry.cli import main
sys.exit(main())
"""
"""Runs `tenantry` on a clock that is off by the seconds that a file says, which may change."""


class Late:
    """A router beside those of a mesh, whose clock the test sets."""

    def __init__(self, cli: Cli, folder: Path) -> None:
        self.cli = cli
        self._shift = folder / "shift"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def is_off(self, seconds: float) -> None:
        self._shift.write_text(f"{seconds:<8}")

    def start(self, seconds: float) -> None:
        self.is_off(seconds)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SHIFTED, str(self._shift), "run", "router"],
                cwd=self.cli.folder,
                env=self.cli.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def health(self) -> dict[str, Any]:
        return dict(self.cli("status", "-o", "json").json["health"])

    def end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(timeout=PATIENCE) in (0, -signal.SIGTERM)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A mesh of its own: what happens here shows in its status."""
    cli = Cli(tmp_path_factory.mktemp("clocks"))
    with cli.up("--no-redis", *SHOP):
        cli.ok("tenants", "create", "acme")
        yield cli


@pytest.fixture
def late(shop: Cli, tmp_path: Path) -> Iterator[Late]:
    found = Late(shop, tmp_path)
    yield found
    found.end()
    soon(lambda: found.health()["routers"] == 1 and not found.health()["clocks"])


def test_a_router_that_starts_with_a_clock_that_is_off_is_not_ready(late: Late) -> None:
    late.start(120)
    soon(lambda: "clock off" in late.log)
    assert "ready router" not in late.log
    late.is_off(0)
    soon(lambda: "ready router" in late.log)


def test_a_router_whose_clock_goes_off_leaves_and_comes_back(late: Late) -> None:
    late.start(0)
    soon(lambda: late.health()["routers"] == 2)
    late.is_off(120)
    soon(lambda: late.health()["routers"] == 1)
    for _ in range(5):
        late.cli.ok("request", "acme", "orders.place", '{"sku": "A-1"}')
    late.is_off(0)
    soon(lambda: late.health()["routers"] == 2)


def test_status_says_whose_clock_is_off_and_fails(late: Late) -> None:
    late.start(-120)
    soon(lambda: bool(late.health()["clocks"]))
    done = late.cli("status")
    assert done.code == 1
    assert re.search(r"router/\w+: its clock is 1[12]\d(\.\d)? s behind that of NATS", done.out)
