"""`tenantry nats …`: files for production."""

from __future__ import annotations

import stat

import pytest

from tenantry.operator.creds import services_of
from tests.acceptance.cli import Cli


@pytest.fixture
def home(alone: Cli) -> Cli:
    """The command line in a folder with an operator's directory, `home`."""
    alone.ok("nats", "init", "home", "--name", "prod", "--port", "4333", "--replicas", "3")
    return alone


def test_init_writes_what_it_is_told(home: Cli) -> None:
    assert "port: 4333" in (home.folder / "home" / "server.conf").read_text()
    assert (home.folder / "home" / "mesh.toml").read_text().count("replicas = 3") == 5


def test_init_says_what_comes_next(alone: Cli) -> None:
    out = alone.ok("nats", "init", "home").out
    assert f"nats-server -c {alone.folder}/home/server.conf" in out
    assert f"tenantry run tenants --home {alone.folder}/home --url nats://127.0.0.1:4222" in out


def test_init_leaves_what_is_there(home: Cli) -> None:
    assert "is an operator home already" in home.fails("nats", "init", "home")


def test_creds_writes_a_secret_file(home: Cli) -> None:
    home.ok(
        "nats", "creds", "service", "--service", "orders", "--home", "home", "--out", "new.creds"
    )
    path = home.folder / "new.creds"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "BEGIN NATS USER JWT" in path.read_text()


def test_creds_goes_into_a_pipe(home: Cli) -> None:
    out = home.ok("nats", "creds", "router", "--home", "home").out
    assert "BEGIN USER NKEY SEED" in out


def test_creds_does_not_write_over_a_file(home: Cli) -> None:
    home.write("new.creds", "precious")
    assert "new.creds exists already" in home.fails(
        "nats", "creds", "service", "--service", "orders", "--home", "home", "--out", "new.creds"
    )


def test_credentials_of_a_service_are_for_services_that_are_named(home: Cli) -> None:
    home.ok(
        *("nats", "creds", "service", "--service", "orders", "--service", "ledger"),
        *("--home", "home", "--out", "both.creds"),
    )
    assert services_of((home.folder / "both.creds").read_text()) == {"orders", "ledger"}


def test_without_a_service_they_are_not_issued(home: Cli) -> None:
    assert home.fails("nats", "creds", "service", "--home", "home", "--out", "x.creds") == (
        "setup: credentials of the role service are for services that are named "
        "(name each that the process runs: --service orders --service ledger)"
    )
    assert not (home.folder / "x.creds").exists()


def test_an_unknown_role_is_told(home: Cli) -> None:
    assert home.fails("nats", "creds", "king", "--home", "home").startswith(
        "setup: unknown role 'king' (one of "
    )


def test_a_home_that_is_not_there_is_told(alone: Cli) -> None:
    assert "home.json is missing" in alone.fails(
        "nats", "creds", "service", "--service", "orders", "--home", "nowhere"
    )


def test_a_durable_server_writes_through(alone: Cli) -> None:
    alone.ok("nats", "init", "plain")
    alone.ok("nats", "init", "durable", "--durable")
    conf = [(alone.folder / name / "server.conf").read_text() for name in ("plain", "durable")]
    assert ['\n  sync_interval: "always"\n' in text for text in conf] == [False, True]
