"""A nats-server whose journal stores nothing any more, as after a full disk."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator

import pytest

from tests.acceptance.cli import SHOP, Cli, soon

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it takes prlimit"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, str]]:
    """A mesh whose disk was full for a moment, and what `status` said then."""
    cli = Cli(tmp_path_factory.mktemp("broken"))
    with cli.up("--no-redis", *SHOP):
        cli.ok("tenants", "create", "acme")
        assert cli("status").code == 0
        server = cli.child("nats-server")
        before = resource.prlimit(server["pid"], resource.RLIMIT_FSIZE)
        resource.prlimit(server["pid"], resource.RLIMIT_FSIZE, (1, before[1]))
        done = cli("status")
        resource.prlimit(server["pid"], resource.RLIMIT_FSIZE, before)
        soon(lambda: cli.child("nats-server")["restarts"] > 0, patience=120)
        assert done.code == 1
        yield cli, done.out


def test_status_says_that_the_journal_does_not_store(broken: tuple[Cli, str]) -> None:
    assert "journal stores no (the journal has not stored a message within 3 s)" in broken[1]


def test_the_restart_is_in_the_log(broken: tuple[Cli, str]) -> None:
    log = (broken[0].state / "logs" / "up.log").read_text()
    assert "nats-server is restarted: the journal does not store" in log


def test_after_the_restart_commands_are_taken(broken: tuple[Cli, str]) -> None:
    order = '{"orders": [{"sku": "B-2"}]}'
    soon(lambda: broken[0]("publish", "acme", "orders.import", order).code == 0, patience=60)


def test_after_the_restart_status_is_good(broken: tuple[Cli, str]) -> None:
    soon(lambda: broken[0]("status").code == 0, patience=60)
