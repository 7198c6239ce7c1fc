"""What happens when processes die, and when they are told to stop."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.cli import SHOP, Cli, lives, soon

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A mesh whose processes are killed, one test after another."""
    cli = Cli(tmp_path_factory.mktemp("patient"))
    with cli.up("--replicas", "2", "examples.shop.orders:service"):
        cli.ok("tenants", "create", "acme")
        yield cli


@pytest.mark.parametrize("name", ["orders-1", "router", "tenants", "nats-server", "valkey"])
def test_a_process_that_is_killed_is_started_again(patient: Cli, name: str) -> None:
    before = patient.child(name)
    os.kill(before["pid"], signal.SIGKILL)
    soon(lambda: patient.child(name)["restarts"] > before["restarts"])
    soon(lambda: patient.child(name)["state"] == "ready")
    assert patient.child(name)["pid"] != before["pid"]


def test_a_valkey_that_was_killed_answers_again(patient: Cli) -> None:
    before = patient.child("valkey")
    os.kill(before["pid"], signal.SIGKILL)
    soon(lambda: patient.child("valkey")["restarts"] > before["restarts"])
    soon(lambda: "Valkey yes" in patient("status").out)


def test_a_killed_process_is_in_the_log(patient: Cli) -> None:
    os.kill(patient.child("orders-2")["pid"], signal.SIGKILL)
    log = patient.state / "logs" / "up.log"
    said = "orders-2 ended (SIGKILL), starting it again in 0.2 s"
    soon(lambda: said in log.read_text())
    soon(lambda: "orders-2 is ready again" in log.read_text())


def test_after_all_of_that_a_request_is_answered(patient: Cli) -> None:
    soon(lambda: patient("request", "acme", "orders.place", '{"sku": "A-1"}').code == 0)


@pytest.fixture(scope="module")
def orphaned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, list[int]]]:
    """A mesh with a tenant, whose supervisor has just been killed, and its children."""
    cli = Cli(tmp_path_factory.mktemp("orphaned"))
    with cli.up():
        cli.ok("tenants", "create", "acme")
        children = cli.pids()
        os.kill(cli.running()["supervisor"], signal.SIGKILL)
        yield cli, children


def test_a_killed_supervisor_takes_its_children_along(orphaned: tuple[Cli, list[int]]) -> None:
    soon(lambda: not any(map(lives, orphaned[1])))


def test_after_a_killed_supervisor_status_says_that_nothing_runs(
    orphaned: tuple[Cli, list[int]],
) -> None:
    done = orphaned[0]("status")
    assert (done.code, done.out) == (1, f"nothing runs in {orphaned[0].state}\n")


def test_after_a_killed_supervisor_up_goes_on_even_in_another_place(
    orphaned: tuple[Cli, list[int]],
) -> None:
    cli = Cli(orphaned[0].folder.with_name("moved"))
    orphaned[0].folder.rename(cli.folder)
    with cli.up():
        assert cli.ok("tenants", "show", "acme", "-o", "json").json["state"] == "active"


def test_a_supervisor_without_a_reader_goes_on_supervising(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    with cli.foreground("up", "--port", "0") as up:
        assert up.stdout is not None
        assert up.stderr is not None
        up.stdout.readline()
        up.stdout.close()
        up.stderr.close()  # as after `2>&1 | head -1`
        for name in ("router", "nats-server"):
            before = cli.child(name)
            os.kill(before["pid"], signal.SIGKILL)
            soon(lambda name=name, pid=before["pid"]: cli.child(name)["pid"] not in (pid, None))
            soon(lambda name=name: cli.child(name)["state"] == "ready")
        up.send_signal(signal.SIGTERM)
        assert up.wait(timeout=60) == 0


class Ended(NamedTuple):
    """A mesh in the foreground after Ctrl-C."""

    code: int
    out: str
    err: str
    living: list[int]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    cli = Cli(tmp_path_factory.mktemp("ended"))
    with cli.foreground("up", "--port", "0", *SHOP) as up:
        assert up.stdout is not None
        line = up.stdout.readline()
        children = cli.pids()
        os.killpg(up.pid, signal.SIGINT)  # as a terminal does it
        _, err = up.communicate(timeout=30)
    return Ended(up.returncode, line, err, [pid for pid in children if lives(pid)])


def test_the_foreground_says_when_it_is_ready(ended: Ended) -> None:
    assert re.fullmatch(r"ready nats://127\.0\.0\.1:\d+\n", ended.out)


def test_ctrl_c_is_no_failure(ended: Ended) -> None:
    assert (ended.code, ended.err.splitlines()[-1]) == (0, "tenantry: stopped")


def test_ctrl_c_stops_all(ended: Ended) -> None:
    assert ended.living == []


def test_ctrl_c_kills_nobody(ended: Ended) -> None:
    assert "does not stop" not in ended.err


def test_the_foreground_shows_what_the_children_log(ended: Ended) -> None:
    names = {line.partition(" ")[0] for line in ended.err.splitlines() if " | " in line}
    assert names == {"nats-server", "valkey", "tenants", "router", "orders", "ledger"}


def test_a_second_ctrl_c_kills(cli: Cli) -> None:
    cli.write("stubborn.py", STUBBORN)
    with cli.foreground("up", "--port", "0", "stubborn:service") as up:
        assert up.stdout is not None
        up.stdout.readline()
        up.send_signal(signal.SIGINT)
        soon(lambda: cli.running()["state"] == "stopping")
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=5)
        assert up.returncode == 0


STUBBORN = """
import asyncio
from collections.abc import AsyncIterator
from tenantry import Context, Service

service = Service("stubborn")

@service.lifespan
async def slow() -> AsyncIterator[None]:
    try:
        yield
    finally:
        await asyncio.sleep(60)

@service.request("ask")
async def ask(ctx: Context) -> None:
    pass
"""
