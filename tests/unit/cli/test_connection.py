from __future__ import annotations

import time
from pathlib import Path

import pytest

from tenantry.cli.app import app
from tenantry.cli.connection import DEFAULT_URL, Connection
from tenantry.errors import ConnectionFailed
from tenantry.local.state import Running, StateFolder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("URL", "CREDS", "STATE", "HOME"):
        monkeypatch.delenv(f"TENANTRY_{name}", raising=False)
    return tmp_path


@pytest.fixture
def running(here: Path) -> Path:
    """A folder with a state folder that says where its mesh is."""
    note = Running(supervisor=1, birth="1", url="nats://state:1", started=time.time())
    StateFolder.open(here / ".tenantry").write_running(note)
    return here


def parsed(*options: str) -> Connection:
    _, bound, _ = app.parse_args(["plans", *options], exit_on_error=False, print_error=False)
    at: Connection = bound.arguments.get("at", Connection())
    return at


def test_without_anything_it_is_the_default(here: Path) -> None:
    assert parsed().server() == DEFAULT_URL


@pytest.mark.parametrize("state", [".tenantry", "elsewhere"])
def test_a_mesh_that_is_down_is_not_looked_for_elsewhere(here: Path, state: str) -> None:
    StateFolder.open(here / state)
    with pytest.raises(ConnectionFailed, match="not running"):
        parsed("--state", state).server()


def test_a_state_folder_that_is_named_has_to_be_there(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_STATE", str(here / "nowhere"))
    with pytest.raises(ConnectionFailed, match="nowhere is not running"):
        parsed().server()


def test_another_operator_s_directory_has_nothing_to_do_with_the_state_folder(here: Path) -> None:
    StateFolder.open(here / ".tenantry")
    assert parsed("--home", "/etc/tenantry").server() == DEFAULT_URL


def test_the_state_folder_goes_before_the_default(running: Path) -> None:
    assert parsed().server() == "nats://state:1"


def test_the_environment_goes_before_the_state_folder(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_URL", "nats://env:1")
    assert parsed().server() == "nats://env:1"


def test_an_option_goes_before_the_environment(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_URL", "nats://env:1")
    assert parsed("--url", "nats://option:1").server() == "nats://option:1"


def test_the_state_folder_may_come_from_the_environment(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_STATE", str(running / ".tenantry"))
    monkeypatch.chdir("/")
    assert parsed().server() == "nats://state:1"


def test_the_operator_s_directory_is_in_the_state_folder(here: Path) -> None:
    assert parsed().operator_home() == here / ".tenantry" / "operator"


def test_the_operator_s_directory_may_come_from_the_environment(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_HOME", "/etc/tenantry")
    assert parsed().operator_home() == Path("/etc/tenantry")
