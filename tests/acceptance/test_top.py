"""`tenantry top`: once in a pipe and as JSON, live on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.acceptance.cli import PATIENCE, Cli, soon


@pytest.fixture(scope="module")
def busy(mesh: Cli) -> Cli:
    """The same mesh, with tenants of whom each does something else."""
    for name in ("alpha", "beta", "quiet"):
        mesh.ok("tenants", "create", name)
    for _ in range(3):
        mesh.ok("request", "alpha", "orders.place", '{"sku": "A-1"}')
    mesh.ok("request", "beta", "orders.place", '{"sku": "B-2"}')
    assert mesh("request", "beta", "orders.nothing").code == 1
    return mesh


def snapshot(cli: Cli, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = cli.ok("top", "-o", "json", *arguments).json
    return found


def rows(cli: Cli, *arguments: str) -> dict[str, dict[str, Any]]:
    return {each["tenant"]: each for each in snapshot(cli, *arguments)["tenants"]}


def test_all_who_answer_are_counted(busy: Cli) -> None:
    def all_answer() -> bool:  # in the time that `top` waits for answers
        found = snapshot(busy)
        return (found["routers"], found["instances"], found["known"] >= 2) == (1, 2, True)

    soon(all_answer)


def test_who_sends_is_there(busy: Cli) -> None:
    busy.ok("request", "alpha", "orders.place", '{"sku": "A-1"}')
    assert rows(busy)["alpha"]["rate"] > 0


def test_who_does_nothing_is_not(busy: Cli) -> None:
    assert "quiet" not in rows(busy)


def test_the_first_is_the_one_with_most(busy: Cli) -> None:
    busy.ok("request", "beta", "orders.place", '{"sku": "B-2"}')
    found = snapshot(busy)["tenants"]
    rates = [each["rate"] for each in found]
    assert rates == sorted(rates, reverse=True)


def test_refusals_are_told_by_code(busy: Cli) -> None:
    assert rows(busy, "--tenant", "beta")["beta"]["refused"] == {"unknown_action": 1}


def test_one_tenant_is_shown_whatever_it_does(busy: Cli) -> None:
    assert [*rows(busy, "--tenant", "quiet")] == ["quiet"]


def test_how_long_handlers_take_is_told(busy: Cli) -> None:
    busy.ok("request", "alpha", "orders.place", '{"sku": "A-1"}')
    found = rows(busy, "--tenant", "alpha")["alpha"]
    assert found["p99_ms"] >= found["p50_ms"] > 0


def test_the_lag_is_told(busy: Cli) -> None:
    soon(lambda: rows(busy, "--tenant", "alpha")["alpha"]["lag"] == 0)


def test_no_more_are_shown_than_asked_for(busy: Cli) -> None:
    busy.ok("request", "alpha", "orders.place", '{"sku": "A-1"}')
    assert len(rows(busy, "--limit", "1")) == 1


@pytest.mark.parametrize(
    "column", ["rate", "limited", "errors", "running", "latency", "lag", "quota"]
)
def test_every_column_sorts(busy: Cli, column: str) -> None:
    assert snapshot(busy, "--sort", column)["by"] == column


@pytest.fixture(scope="module")
def metered(busy: Cli) -> Cli:
    """Two tenants more, with a quota of which each has used another part."""
    busy.write("metered.toml", '[metered]\n[[metered.quotas]]\nperiod = "month"\namount = 4\n')
    busy.ok("plans", "apply", "metered.toml")
    for name, count in (("half", 2), ("most", 3)):
        busy.ok("tenants", "create", name, "--plan", "metered")
        for _ in range(count):
            busy.ok("request", name, "orders.place", '{"sku": "A-1"}')
    return busy


def test_by_quota_the_first_is_who_has_used_most_of_it(metered: Cli) -> None:
    def found() -> list[tuple[str, float, str]]:
        tenants = snapshot(metered, "--sort", "quota")["tenants"]
        return [(each["tenant"], each["quota_percent"], each["quota_name"]) for each in tenants]

    soon(lambda: found() == [("most", 75.0, "per-month"), ("half", 50.0, "per-month")], 40.0)


def test_who_has_no_quota_has_used_none_of_it(metered: Cli) -> None:
    assert rows(metered, "--tenant", "alpha")["alpha"]["quota_percent"] is None


def test_in_a_pipe_it_is_one_plain_table(busy: Cli) -> None:
    busy.ok("request", "alpha", "orders.place", '{"sku": "A-1"}')
    head, *lines = busy.ok("top").out.splitlines()
    assert head.split()[:4] == ["TENANT", "RATE/S", "LIMITED/S", "ERRORS/S"]
    assert "alpha" in [line.split()[0] for line in lines]


def test_an_unknown_column_is_a_usage_error(alone: Cli) -> None:
    assert "colour" in alone.misused("top", "--sort", "colour")


def test_no_tenant_id_is_an_error(alone: Cli) -> None:
    assert alone.fails("top", "--tenant", "A B").startswith("bad_subject: 'A B' is not a tenant id")


def test_without_a_mesh_it_says_how_to_start_one(alone: Cli) -> None:
    assert "tenantry up" in alone.fails("top")


# --- live --------------------------------------------------------------------------------------


class Terminal:
    """`tenantry top` on a terminal of its own."""

    def __init__(self, cli: Cli, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(self._ours, (40, 160))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tenantry", "top", "--every", "0.5", *arguments],
            cwd=cli.folder,
            # The width is the terminal's own, whatever those who run the tests have set.
            env={k: v for k, v in cli.env.items() if k != "COLUMNS"} | {"TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def shows(self, holds: Callable[[str], bool]) -> bool:
        """Whether the terminal soon shows this, from what comes now."""
        self.shown, end = "", time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([self._ours], [], [], 0.2)[0]:
                self.shown += os.read(self._ours, 65_536).decode("utf-8", "replace")
            if holds(self.shown):
                return True
        return False

    def ends(self) -> int:
        """Its exit code; what it still writes must be read meanwhile."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self._ours], [], [], 0.05)[0]:
                self.shown += os.read(self._ours, 65_536).decode("utf-8", "replace")
        return self.process.wait(0)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(shop: Cli, busy: Cli) -> Iterator[Terminal]:
    """Live, once it shows a tenant."""
    shop.ok("request", "alpha", "orders.place", '{"sku": "A-1"}')
    terminal = Terminal(shop, "--tenant", "alpha")
    assert terminal.shows(lambda text: "alpha" in text), terminal.shown
    yield terminal
    terminal.close()


def test_it_goes_on_looking(terminal: Terminal) -> None:
    assert terminal.shows(lambda text: text.count("alpha") >= 2)


def test_a_key_sorts_by_another_column(terminal: Terminal) -> None:
    terminal.type("e")
    assert terminal.shows(lambda text: "▾ errors/s" in text), terminal.shown


def test_a_key_sorts_by_lag(terminal: Terminal) -> None:
    terminal.type("g")
    assert terminal.shows(lambda text: "▾ lag" in text and "alpha" in text), terminal.shown


def test_q_ends_it(terminal: Terminal) -> None:
    terminal.type("q")
    assert terminal.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(terminal: Terminal, number: signal.Signals) -> None:
    terminal.process.send_signal(number)
    assert terminal.ends() == 0


def test_the_terminal_is_left_as_it_was(terminal: Terminal) -> None:
    terminal.type("q")
    terminal.ends()
    assert termios.tcgetattr(terminal.theirs) == terminal.before
