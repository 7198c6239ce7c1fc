"""`tenantry backup` and `tenantry restore`, on a mesh of their own."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cli import SHOP, Cli, Inside, soon

ORDERS = '{"orders": [{"sku": "B-2"}]}'


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A mesh with a tenant whose ledger knows one order, and a backup of it."""
    cli = Cli(tmp_path_factory.mktemp("backup"))
    with cli.up(*SHOP):
        cli.ok("tenants", "create", "acme")
        cli.ok("publish", "acme", "orders.import", ORDERS)
        soon(lambda: total(cli) > 0)
        cli.ok("backup", "saved")
        yield cli


@pytest.fixture
def mesh(shop: Cli) -> Cli:
    return Inside(shop.folder)


def total(cli: Cli) -> int:
    """What the ledger has summed up; nothing before its first order."""
    done = cli("request", "acme", "ledger.total")
    return int(done.json["cents"]) if done.code == 0 else 0


def test_a_backup_is_made_and_tried(mesh: Cli) -> None:
    lines = mesh.ok("backup", "tried", "--verify").out.splitlines()
    assert lines[0].split() == ["STREAM", "MESSAGES", "CONSUMERS", "BYTES"]
    assert lines[1].startswith("JOURNAL ")
    assert lines[-2] == "backed up to tried, and restored it for a trial"
    assert lines[-1].startswith("Not in it: the operator's directory")


def test_a_backup_is_looked_at_alone(mesh: Cli) -> None:
    said = mesh.ok("restore", "saved", "--check", "-o", "json").json
    assert said["checked_only"] is True
    assert {"JOURNAL", "DEAD", "KV_tenants", "KV_state"} <= {s["name"] for s in said["streams"]}


def test_a_folder_that_exists_is_refused(mesh: Cli) -> None:
    assert mesh.fails("backup", "saved") == "setup: saved exists already (name a new folder)"


def test_a_broken_backup_is_refused(mesh: Cli) -> None:
    mesh.ok("backup", "broken")
    path = mesh.folder / "broken" / "JOURNAL.snapshot"
    path.write_bytes(path.read_bytes()[:-1])
    assert "broken/JOURNAL.snapshot has" in mesh.fails("restore", "broken", "--check")


def test_a_backup_that_does_not_restore_is_told(mesh: Cli) -> None:
    mesh.ok("backup", "rotten")
    folder = mesh.folder / "rotten"
    raw = bytearray((folder / "JOURNAL.snapshot").read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    (folder / "JOURNAL.snapshot").write_bytes(raw)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["streams"][0]["sha256"] = hashlib.sha256(raw).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    error = mesh.fails("restore", "rotten", "--check")
    assert error.startswith("jetstream: restore failed")
    assert error.endswith("(this backup is no good: take another)")


def test_what_is_no_backup_is_refused(mesh: Cli) -> None:
    assert mesh.fails("restore", "nothing") == (
        "setup: nothing is no backup: it has no manifest.json "
        "(name a folder that `tenantry backup` has made)"
    )


def test_while_workers_run_nothing_is_restored(mesh: Cli) -> None:
    error = mesh.fails("restore", "saved", "--replace")
    assert error.startswith("conflict: workers run: ")
    assert "ledger" in error
    assert total(mesh) > 0


def test_a_killed_backup_leaves_none_and_is_run_again(mesh: Cli) -> None:
    process = mesh.start("backup", "killed")
    part = mesh.folder / "killed.part"
    soon(lambda: part.exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    if process.wait() == -signal.SIGKILL and not (mesh.folder / "killed").exists():
        mesh.ok("backup", "killed")
    assert not part.exists()
    mesh.ok("restore", "killed", "--check")


def test_a_mesh_comes_back(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    with cli.up(*SHOP):
        cli.ok("tenants", "create", "acme")
        cli.ok("publish", "acme", "orders.import", ORDERS)
        soon(lambda: total(cli) > 0)
        before = total(cli)
        cli.ok("backup", "saved")
        cli.ok("publish", "acme", "orders.import", ORDERS)
        soon(lambda: total(cli) > before)
    assert "has streams already: JOURNAL" in cli.fails("restore", "saved")
    process = cli.start("restore", "saved", "--replace")  # killed at any moment
    soon(lambda: process.poll() is not None or _runs_nats(process.pid))
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = cli.ok("restore", "saved", "--replace", "-o", "json")
    assert {each["name"] for each in done.json["streams"]} >= {"JOURNAL", "KV_tenants"}
    with cli.up(*SHOP):
        assert total(cli) == before
        cli.ok("publish", "acme", "orders.import", ORDERS)
        soon(lambda: total(cli) == 2 * before)


def _runs_nats(pid: int) -> bool:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return children.exists() and bool(children.read_text().split())
