"""A command imports what it needs, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tenantry.cli.app import ENTRIES, Entry, app

PROGRAM = """
import sys
from tenantry.cli import main
main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
"""


def imported(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_what_talks_to_nobody_imports_no_client(option: str) -> None:
    assert imported(option) & {"nats", "asyncio", "msgspec", "structlog", "tenantry.bus"} == set()


def test_a_request_imports_neither_worker_nor_control_plane() -> None:
    found = imported("request", "acme", "orders.place")
    assert "tenantry.client" in found
    assert found & {"tenantry.runtime", "tenantry.delivery", "tenantry.control"} == set()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_list_of_commands_says_what_their_own_help_begins_with(entry: Entry) -> None:
    own = app[entry.name].help
    assert " ".join(own.split("\n\n")[0].split()) == entry.summary
