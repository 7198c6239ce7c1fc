"""`NatsProcess` with the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantry.errors import SetupError
from tenantry.local.server import (
    NatsProcess,
    check_version,
    find_nats_server,
    free_port,
    port_is_free,
    read_info,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsProcess]:
    try:
        find_nats_server()
    except SetupError as error:
        pytest.skip(f"NO NATS SERVER, NOT TESTED. {error}")
    config = tmp_path / "server.conf"
    config.write_text("host: 127.0.0.1\n")
    process = NatsProcess(config, port=free_port())
    yield process
    process.kill()


def test_the_installed_server_is_new_enough() -> None:
    assert check_version(find_nats_server())


def test_a_started_server_greets(server: NatsProcess) -> None:
    server.start()
    assert read_info(server.port) is not None


def test_starting_twice_keeps_the_server(server: NatsProcess) -> None:
    server.start()
    before = read_info(server.port)
    server.start()
    after = read_info(server.port)
    assert before is not None
    assert after is not None
    assert before["server_id"] == after["server_id"]


def test_the_url_leads_to_its_port(server: NatsProcess) -> None:
    assert server.url == f"nats://127.0.0.1:{server.port}"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_an_ended_server_frees_its_port(server: NatsProcess, end: str) -> None:
    server.start()
    getattr(server, end)()
    assert port_is_free(server.port)
    assert not server.running


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_ending_what_does_not_run_is_no_error(server: NatsProcess, end: str) -> None:
    getattr(server, end)()
    assert not server.running


def test_a_restarted_server_has_the_same_port(server: NatsProcess) -> None:
    server.start().restart()
    assert read_info(server.port) is not None


def test_a_broken_configuration_is_told_with_the_servers_own_words(server: NatsProcess) -> None:
    server.config.write_text("no_such_option: 1\n")
    with pytest.raises(SetupError, match="no_such_option"):
        server.start()


def test_another_server_on_the_port_is_not_taken_for_ours(server: NatsProcess) -> None:
    server.start()
    second = NatsProcess(server.config, port=server.port)
    with pytest.raises(SetupError, match=f"port {server.port} is taken"):
        second.start()


def test_a_server_that_does_not_get_ready_is_ended(server: NatsProcess) -> None:
    with pytest.raises(SetupError, match="not ready in time"):
        server.start(timeout=0)
    assert not server.running
