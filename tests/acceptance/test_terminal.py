"""Help, usage errors, pipes and terminals."""

from __future__ import annotations

import inspect
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import pytest
from cyclopts import App

from tenantry.cli.app import app
from tests.acceptance.cli import PATIENCE, Cli


def leaves(tree: App, *names: str) -> Iterator[tuple[str, ...]]:
    for name in tree:
        if not name.startswith("-"):
            branch = tree[name]
            inner = [each for each in branch if not each.startswith("-")]
            yield (*names, name)
            if inner:
                yield from leaves(branch, *names, name)


@pytest.mark.parametrize("command", [(), *leaves(app)], ids=" ".join)
def test_help_shows_examples(alone: Cli, command: tuple[str, ...]) -> None:
    out = alone.ok(*command, "--help").out
    assert f"Usage: {' '.join(['tenantry', *command])}" in out
    assert "Examples:" in out


@pytest.mark.parametrize("command", [(), *leaves(app)], ids=" ".join)
def test_help_fits_a_terminal(command: tuple[str, ...]) -> None:
    shown = app
    for name in command:
        shown = shown[name]
    lines = f"{inspect.cleandoc(shown.help)}\n{shown.help_epilogue}".splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_nothing_said_shows_the_help(alone: Cli) -> None:
    assert alone.ok().out.startswith("Usage: tenantry COMMAND")


def test_version(cli: Cli) -> None:
    assert cli.ok("--version").out == f"{version('tenantry')}\n"


def test_an_unknown_command_is_a_usage_error(cli: Cli) -> None:
    error = cli.misused("tenan")
    assert error.startswith('usage: Unknown command "tenan". Did you mean "tenants"?')


def test_an_unknown_option_is_a_usage_error(alone: Cli) -> None:
    error = alone.misused("tenants", "create", "acme", "--plam", "x")
    assert error.startswith("usage: Unknown option: ")
    assert error.endswith("(see `tenantry tenants create --help`)")


def test_a_missing_argument_is_a_usage_error(alone: Cli) -> None:
    assert "TENANT" in alone.misused("tenants", "create")


def test_an_unknown_format_is_a_usage_error(alone: Cli) -> None:
    assert "yaml" in alone.misused("services", "-o", "yaml")


def test_whoever_closes_the_pipe_hears_nothing_more(shop: Cli) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tenantry", "services"],
        cwd=shop.folder,
        env=shop.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait(PATIENCE)) == (b"", 141)


def test_on_a_terminal_an_answer_is_indented(shop: Cli) -> None:
    code, out = on_terminal(shop, "request", "acme", "orders.place", '{"sku": "A-1"}')
    assert code == 0
    assert '{\r\n  "id": ' in out


def test_on_a_terminal_a_table_is_drawn(shop: Cli) -> None:
    code, out = on_terminal(shop, "tenants", "list", columns=200)
    assert code == 0
    assert "─" in out
    assert "acme" in out


def test_on_a_narrow_terminal_nothing_of_a_table_is_cut(shop: Cli) -> None:
    shop.ok("tenants", "create", "acme-" + "x" * 58)
    code, out = on_terminal(shop, "tenants", "list")
    assert (code, "…" in out) == (0, False)
    assert "acme-" + "x" * 58 in out.replace("\r\n", "")


def test_on_a_terminal_delete_asks_and_takes_only_the_id(shop: Cli) -> None:
    shop.ok("tenants", "create", "doomed")
    code, out = on_terminal(shop, "tenants", "delete", "doomed", typed="yes\n")
    assert (code, "not deleted" in out) == (2, True)
    code, out = on_terminal(shop, "tenants", "delete", "doomed", typed="doomed\n")
    assert (code, "deleted doomed" in out) == (0, True)


def test_on_a_terminal_secrets_are_not_shown(shop: Cli) -> None:
    home = str(shop.state / "operator")
    code, out = on_terminal(shop, "nats", "creds", "router", "--home", home)
    assert code == 2
    assert "credentials are secret" in out


def on_terminal(cli: Cli, *arguments: str, typed: str = "", columns: int = 80) -> tuple[int, str]:
    """Run a command on a terminal of its own: its exit code, and what the terminal shows."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tenantry", *arguments],
        cwd=cli.folder,
        env={**cli.env, "COLUMNS": str(columns)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = b""
        try:
            while chunk := os.read(ours, 65_536):
                shown += chunk
        except OSError:  # that is how a terminal ends on Linux
            pass
        os.close(ours)
        return process.wait(PATIENCE), shown.decode()
