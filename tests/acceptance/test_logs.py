"""`tenantry logs`: what the processes have logged, chosen by service, trace and tenant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tenantry.local.state import StateFolder
from tests.acceptance.cli import Cli

EARLY = (
    '{"tenant": "acme", "trace_id": "aa11", "event": "one", "timestamp": "2026-01-01T00:00:01Z"}'
)
LATE = '{"tenant": "globex", "event": "three", "timestamp": "2026-01-01T00:00:03Z"}'
BETWEEN = "2026-01-01T00:00:02.000000Z [info     ] two        tenant=acme trace_id=aa11"
NATS = "[7] 2026/01/01 00:00:04.000001 [INF] Server is ready"


@pytest.fixture
def logged(alone: Cli) -> Cli:
    """A state folder with the logs of three processes."""
    folder = StateFolder.open(alone.state)
    write(folder.logs / "orders-1.log.1", EARLY)
    write(folder.logs / "orders-1.log", LATE)
    write(folder.logs / "orders-2.log", BETWEEN)
    write(folder.logs / "nats-server.log", NATS)
    return alone


def write(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def texts(cli: Cli, *arguments: str) -> list[str]:
    cli.env["TZ"] = "UTC"
    lines = cli.ok("logs", *arguments).out.splitlines()
    return [line.partition(" | ")[2] or line for line in lines]


def test_all_logs_are_one_in_order_of_time(logged: Cli) -> None:
    assert texts(logged) == [EARLY, BETWEEN, LATE, NATS]


def test_a_line_names_its_process(logged: Cli) -> None:
    assert logged.ok("logs", "--last", "1").out == f"nats-server | {NATS}\n"


def test_the_name_of_a_service_takes_all_its_replicas(logged: Cli) -> None:
    assert texts(logged, "orders") == [EARLY, BETWEEN, LATE]


def test_one_process_is_shown_as_it_logged(logged: Cli) -> None:
    assert logged.ok("logs", "orders-2").out == f"{BETWEEN}\n"


def test_by_tenant(logged: Cli) -> None:
    assert texts(logged, "--tenant", "acme") == [EARLY, BETWEEN]


def test_by_trace(logged: Cli) -> None:
    assert texts(logged, "--trace", "aa11") == [EARLY, BETWEEN]


def test_what_never_ran_has_no_log(logged: Cli) -> None:
    assert logged.fails("logs", "ledger") == (
        f"not_found: no log of ledger in {logged.state / 'logs'} "
        "(of: nats-server, orders-1, orders-2)"
    )


def test_where_no_mesh_was_there_are_no_logs(alone: Cli) -> None:
    assert "is no state folder" in alone.fails("logs")


def test_following_shows_what_comes_also_in_a_new_file(logged: Cli) -> None:
    log = logged.state / "logs" / "orders-1.log"
    with subprocess.Popen(
        [sys.executable, "-m", "tenantry", "logs", "orders-1", "-f"],
        cwd=logged.folder,
        env=logged.env,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [f"{EARLY}\n", f"{LATE}\n"]
        write(log, "before")
        log.replace(log.with_name("orders-1.log.1"))
        write(log, "after")
        assert [process.stdout.readline() for _ in range(2)] == ["before\n", "after\n"]
        process.terminate()
