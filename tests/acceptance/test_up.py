"""What can be wrong when a mesh is started: each is one line."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import stat
from pathlib import Path

import pytest

from tests.acceptance.cli import Cli


def test_the_state_folder_is_for_its_owner_alone(mesh: Cli) -> None:
    assert stat.S_IMODE(mesh.state.stat().st_mode) == 0o700


def test_the_state_folder_says_its_format(mesh: Cli) -> None:
    assert json.loads((mesh.state / "state.json").read_text()) == {"format": 1}


def test_the_state_folder_keeps_itself_out_of_git(mesh: Cli) -> None:
    assert (mesh.state / ".gitignore").read_text() == "*\n"


def test_every_process_has_a_log(mesh: Cli) -> None:
    logs = {path.name for path in (mesh.state / "logs").iterdir()}
    assert logs >= {"nats-server.log", "tenants.log", "router.log", "orders.log", "ledger.log"}


def test_a_second_up_on_the_folder_says_who_uses_it_and_how_to_stop_it(mesh: Cli) -> None:
    url = mesh.running()["url"]
    assert mesh.fails("up", "--port", "0") == (
        f"setup: the state folder {mesh.state} is in use by the mesh at {url} (stop it with "
        "`tenantry down`, or use another --state DIR)"
    )


def test_a_second_up_in_the_background_says_so_too(mesh: Cli) -> None:
    assert "is in use by the mesh at" in mesh.fails("up", "-d", "--port", "0")


def test_a_taken_port_says_how_to_choose_another(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.fails("up", "-d", "--port", port) == (
            f"setup: port {port} is taken (choose another with --port N, or any with --port 0)"
        )


def test_a_folder_of_a_newer_version_is_left_alone(alone: Cli) -> None:
    alone.state.mkdir()
    (alone.state / "state.json").write_text('{"format": 2}')
    assert alone.fails("up") == (
        f"setup: the state folder {alone.state} has format 2, this version knows 1 "
        "(a newer Tenantry made it: upgrade this one, or use another --state DIR)"
    )


def test_a_corrupt_format_is_an_error(alone: Cli) -> None:
    alone.state.mkdir()
    (alone.state / "state.json").write_text("{")
    assert "state.json is corrupt" in alone.fails("up")


def test_a_folder_of_somebody_else_is_left_alone(alone: Cli) -> None:
    alone.write("notes.txt", "mine")
    assert "is not empty and no state folder of Tenantry" in alone.fails("up", "--state", ".")


def test_a_file_in_place_of_the_folder_is_an_error(alone: Cli) -> None:
    alone.write("file", "")
    assert "is not a folder" in alone.fails("up", "--state", "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_an_error(alone: Cli) -> None:
    alone.state.mkdir(mode=0o000)
    assert "Permission denied" in alone.fails("up")


def test_a_folder_that_cannot_be_made_is_an_error(alone: Cli) -> None:
    assert "/proc/nowhere can't be used" in alone.fails("up", "--state", "/proc/nowhere")


def test_damaged_keys_are_an_error(alone: Cli) -> None:
    alone.state.mkdir()
    (alone.state / "state.json").write_text('{"format": 1}')
    (alone.state / "operator").mkdir()
    (alone.state / "operator" / "home.json").write_text("no json")
    assert "home.json is corrupt" in alone.fails("up", "--port", "0")


def test_a_missing_nats_server_is_an_error(alone: Cli) -> None:
    error = alone.fails("up", env={"TENANTRY_NATS_SERVER": "/nowhere/nats-server"})
    assert error.startswith("setup: TENANTRY_NATS_SERVER names /nowhere/nats-server")


def test_a_missing_valkey_server_is_an_error_where_it_is_named(alone: Cli) -> None:
    error = alone.fails("up", env={"TENANTRY_VALKEY_SERVER": "/nowhere/valkey"})
    assert error.startswith("setup: TENANTRY_VALKEY_SERVER names /nowhere/valkey")


def test_a_redis_that_is_no_url_is_a_usage_error(alone: Cli) -> None:
    assert alone.misused("up", "--redis", "localhost:6379").startswith("usage: --redis is no URL")


def test_a_valkey_runs_beside_nats(mesh: Cli) -> None:
    assert mesh.child("valkey")["state"] == "ready"


def test_what_runs_is_told_without_the_password(mesh: Cli) -> None:
    assert re.fullmatch(r"redis://127\.0\.0\.1:\d+/0", mesh.running()["redis"])


def test_status_tells_that_valkey_answers(mesh: Cli) -> None:
    assert mesh.ok("status", "-o", "json").json["health"]["redis"] is True
    assert ", Valkey yes" in mesh.ok("status").out


def test_without_redis_status_tells_so(cli: Cli) -> None:
    with cli.up("--no-redis"):
        assert "no Redis (each router counts alone)" in cli.ok("status").out
        assert [each["name"] for each in cli.running()["children"]] == [
            *("nats-server", "tenants", "router")
        ]


def test_a_redis_elsewhere_is_used_and_shown_without_its_password(cli: Cli) -> None:
    with cli.up("--redis", "redis://me:secret@127.0.0.1:1/0"):
        assert "Redis at redis://127.0.0.1:1/0 (not asked)" in cli.ok("status").out
        assert "valkey" not in [each["name"] for each in cli.running()["children"]]


def test_a_wrong_mesh_toml_is_an_error_with_its_path(cli: Cli) -> None:
    cli.ok("nats", "init", str(cli.state / "operator"))
    (cli.state / "state.json").write_text('{"format": 1}')
    (cli.state / "operator" / "mesh.toml").write_text("[journal]\nmax_bites = 3\n")
    error = cli.fails("up", "-d", "--port", "0")
    assert error.startswith("setup: tenants: /")
    assert "max_bites" in error


def test_a_service_that_is_not_there_ends_up_with_its_own_line(cli: Cli) -> None:
    error = cli.fails("up", "-d", "--port", "0", "nowhere:service")
    assert error.startswith("setup: nowhere: there is no module nowhere")


def test_a_service_that_fails_at_import_ends_up_with_the_line_of_its_fault(cli: Cli) -> None:
    cli.write("broken.py", "x = 1\ny = x / 0\n")
    error = cli.fails("up", "-d", "--port", "0", "broken:service")
    assert "ZeroDivisionError: division by zero, broken.py:2" in error


def test_a_failed_up_leaves_nothing_behind(cli: Cli) -> None:
    cli.fails("up", "-d", "--port", "0", "nowhere:service")
    assert cli.ok("down").out == f"nothing runs in {cli.state}\n"


def test_a_failed_up_in_the_foreground_ends_with_its_line(cli: Cli) -> None:
    done = cli("up", "--quiet", "--port", "0", "nowhere:service")
    assert (done.code, done.out) == (1, "")
    assert done.error.startswith("setup: nowhere: there is no module nowhere")


def test_down_where_nothing_runs_says_so(alone: Cli) -> None:
    assert alone.ok("down").out == f"nothing runs in {alone.state}\n"


def test_down_makes_no_folder(alone: Cli) -> None:
    alone.ok("down")
    assert not alone.state.exists()


def test_a_target_of_another_form_is_a_usage_error(alone: Cli) -> None:
    assert alone.misused("up", "shop.py").startswith("usage: 'shop.py' is not MODULE:ATTR")


def test_no_router_is_a_usage_error(alone: Cli) -> None:
    assert "--routers" in alone.misused("up", "--routers", "0")


def test_a_port_beyond_the_last_is_a_usage_error(alone: Cli) -> None:
    assert "--port" in alone.misused("up", "--port", "70000")


def test_a_folder_that_is_locked_by_somebody_unknown_is_in_use(alone: Cli) -> None:
    lock = _locked(alone.state)
    try:
        assert "is in use (stop it" in alone.fails("up", "--port", "0")
    finally:
        os.close(lock)


def _locked(state: Path) -> int:
    state.mkdir()
    (state / "state.json").write_text('{"format": 1}')
    handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def test_a_lock_of_somebody_unknown_is_not_stopped(alone: Cli) -> None:
    lock = _locked(alone.state)
    try:
        assert "by whom is not written there" in alone.fails("down")
    finally:
        os.close(lock)
