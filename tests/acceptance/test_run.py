"""`tenantry run`: what can be wrong with a target, and how a worker is told to stop."""

from __future__ import annotations

import os
import signal
import stat

import pytest

from tenantry.operator.creds import services_of
from tests.acceptance.cli import PATIENCE, Cli

TWICE = """
from tenantry import Context, Service

service = Service("orders")

@service.request("place")
async def place(ctx: Context) -> None:
    pass

@service.request("place")
async def again(ctx: Context) -> None:
    pass
"""

PLAIN = """
from tenantry import Context, Service

service = Service("plain")
number = 1

@service.request("ask", public=True)
async def ask(ctx: Context) -> None:
    print("asked")
"""


def test_a_module_that_is_not_there(alone: Cli) -> None:
    assert alone.fails("run", "nowhere.orders:service") == (
        f"setup: there is no module nowhere (modules are looked for in {alone.folder} too)"
    )


def test_a_module_that_imports_what_is_not_there(alone: Cli) -> None:
    alone.write("shop.py", "import os\nimport nothing_of_this_name\n")
    assert alone.fails("run", "shop:service") == (
        "setup: shop can't be imported: ModuleNotFoundError: No module named "
        "'nothing_of_this_name', shop.py:2"
    )


def test_a_module_that_does_not_parse(alone: Cli) -> None:
    alone.write("shop.py", "x = 1\ndef f(:\n")
    error = alone.fails("run", "shop:service")
    assert error == "setup: shop can't be imported: SyntaxError: invalid syntax, shop.py:2"


def test_a_module_that_ends_the_program(alone: Cli) -> None:
    alone.write("shop.py", "import sys\nsys.exit('no')\n")
    assert alone.fails("run", "shop:service") == (
        "setup: shop can't be imported: SystemExit: no, shop.py:2"
    )


def test_an_attribute_that_is_not_there(alone: Cli) -> None:
    alone.write("plain.py", PLAIN)
    assert alone.fails("run", "plain:servise") == (
        "setup: plain has no attribute servise (it has plain:service)"
    )


def test_something_else_than_a_service(alone: Cli) -> None:
    alone.write("plain.py", PLAIN)
    assert alone.fails("run", "plain:number") == (
        "setup: plain:number is not a tenantry.Service but int (it has plain:service)"
    )


def test_an_action_that_is_declared_twice(alone: Cli) -> None:
    alone.write("shop.py", TWICE)
    assert alone.fails("run", "shop:service") == (
        "declaration: service orders declares place twice, shop.py:10 "
        "(give one of them another name)"
    )


def test_no_nats_to_connect_to(cli: Cli) -> None:
    cli.write("plain.py", PLAIN)
    cli.ok("nats", "init", "home")
    error = cli.fails("run", "plain:service", "--home", "home", "--url", "nats://127.0.0.1:1")
    assert error.startswith("connection_failed: can't connect to NATS: nats://127.0.0.1:1:")


def test_no_credentials(alone: Cli) -> None:
    alone.write("plain.py", PLAIN)
    assert alone.fails("run", "plain:service").startswith(
        f"setup: no credentials of the role service: {alone.state}/operator/creds/service.creds"
    )


def test_credentials_of_a_tenant(mesh: Cli) -> None:
    mesh.write("plain.py", PLAIN)
    assert mesh.fails("run", "plain:service", "--creds", "acme.creds") == (
        "setup: acme.creds holds credentials of the tenant acme, not of the role service "
        "(unset TENANTRY_CREDS or give --creds FILE)"
    )


def test_credentials_of_another_service(alone: Cli) -> None:
    alone.write("plain.py", PLAIN)
    alone.ok("nats", "init", "home")
    alone.ok("nats", "creds", "service", "--service", "x", "--home", "home", "--out", "x.creds")
    assert alone.fails("run", "plain:service", "--creds", "x.creds") == (
        "setup: x.creds holds credentials for x, not for plain "
        "(issue some with `tenantry nats creds service --service plain --service x`)"
    )


def test_a_home_has_its_services_credentials_made_at_their_first_run(alone: Cli) -> None:
    alone.write("plain.py", PLAIN)
    alone.ok("nats", "init", "home")
    alone.fails("run", "plain:service", "--home", "home", "--url", "nats://127.0.0.1:1")
    made = alone.folder / "home" / "creds" / "service.plain.creds"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert services_of(made.read_text()) == {"plain"}


def test_a_shipped_worker_without_a_home(alone: Cli) -> None:
    assert "operator" in alone.fails("run", "router")


def test_a_name_that_is_no_worker(alone: Cli) -> None:
    assert alone.misused("run", "ruter") == (
        "usage: 'ruter' is neither a worker nor MODULE:ATTR (workers: router, tenants; a service "
        "is written like shop.orders:service)"
    )


def test_a_shipped_worker_runs_alone(alone: Cli) -> None:
    assert "process of its own" in alone.misused("run", "router", "tenants")


def test_nothing_to_run(alone: Cli) -> None:
    assert "nothing to run" in alone.misused("run")


def test_an_operator_home_that_is_none(alone: Cli) -> None:
    (alone.folder / "home").mkdir()
    assert "is not an operator home" in alone.fails("run", "tenants", "--home", "home")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_worker_in_order(mesh: Cli, number: signal.Signals) -> None:
    mesh.write("plain.py", PLAIN)
    with mesh.foreground("run", "plain:service") as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready plain:service\n"
        worker.send_signal(number)
        _, err = worker.communicate(timeout=20)
        assert worker.returncode == 0
        assert '"event": "stopped"' in err.splitlines()[-1]


def test_a_worker_ends_although_nats_does_not_answer(cli: Cli) -> None:
    cli.write("plain.py", PLAIN)
    with cli.up():
        server = cli.child("nats-server")["pid"]
        with cli.foreground("run", "plain:service", "--drain", "1") as worker:
            assert worker.stdout is not None
            worker.stdout.readline()
            os.kill(server, signal.SIGSTOP)
            try:
                worker.send_signal(signal.SIGTERM)
                _, err = worker.communicate(timeout=PATIENCE)
            finally:
                os.kill(server, signal.SIGCONT)
        assert worker.returncode == 1
        assert "no orderly end in time" in err.splitlines()[-1]
