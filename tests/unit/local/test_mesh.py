from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tenantry.errors import SetupError
from tenantry.local import mesh, valkey
from tenantry.local.mesh import MeshOptions
from tenantry.local.state import StateFolder
from tenantry.runtime import config

GIB = 1024**3


def names(tmp_path: Path, **options: object) -> list[list[str]]:
    folder = StateFolder.open(tmp_path / "state")
    wanted = MeshOptions(port=0, **options)  # type: ignore[arg-type]
    _, stages = mesh.prepare(folder, wanted)
    return [[spec.name for spec in stage] for stage in stages]


def test_a_mesh_without_services(tmp_path: Path) -> None:
    assert names(tmp_path) == [["nats-server"], ["tenants"], ["router"]]


def test_a_valkey_starts_beside_nats(tmp_path: Path) -> None:
    assert names(tmp_path, valkey=Path("/bin/true"))[0] == ["nats-server", "valkey"]


def redis_of(tmp_path: Path, **options: object) -> list[str]:
    """The workers that are told where Redis is."""
    wanted = MeshOptions(port=0, services=("shop.orders:service",), **options)  # type: ignore[arg-type]
    _, stages = mesh.prepare(StateFolder.open(tmp_path / "state"), wanted)
    return [spec.name for stage in stages[1:] for spec in stage if mesh.REDIS in spec.env]


def test_only_routers_are_told_where_the_valkey_is(tmp_path: Path) -> None:
    assert redis_of(tmp_path, valkey=Path("/bin/true")) == ["router"]


def test_a_redis_that_runs_goes_before_a_valkey(tmp_path: Path) -> None:
    stages = names(tmp_path, valkey=Path("/bin/true"), redis="redis://there")
    assert stages[0] == ["nats-server"]


def test_routers_are_told_of_a_redis_that_runs(tmp_path: Path) -> None:
    assert redis_of(tmp_path, redis="redis://there") == ["router"]


def test_without_both_nobody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mesh.REDIS, "redis://of-something-else")
    assert redis_of(tmp_path) == []


def test_no_secret_is_on_a_command_line(tmp_path: Path) -> None:
    wanted = MeshOptions(port=0, valkey=Path("/bin/true"))
    folder = StateFolder.open(tmp_path / "state")
    _, stages = mesh.prepare(folder, wanted)
    password = urlsplit(valkey.url_of(folder.path) or "").password
    assert password
    assert not any(password in word for stage in stages for spec in stage for word in spec.command)


def test_replicas_are_numbered(tmp_path: Path) -> None:
    stages = names(tmp_path, routers=2, replicas=2, services=("shop.orders:service",))
    assert stages[2] == ["router-1", "router-2", "orders-1", "orders-2"]


def test_names_that_are_not_enough_are_written_in_full(tmp_path: Path) -> None:
    stages = names(tmp_path, services=("a.orders:x", "b.orders:x", "c.router:x"))
    assert stages[2] == ["router", "a.orders.x", "b.orders.x", "c.router.x"]


def test_settings_of_ours_do_not_reach_the_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_CREDS", "/of/a/tenant.creds")
    _, stages = mesh.prepare(StateFolder.open(tmp_path / "state"), MeshOptions(port=0))
    assert "TENANTRY_CREDS" not in stages[1][0].env


def test_a_second_time_the_keys_stay(tmp_path: Path) -> None:
    names(tmp_path)
    before = (tmp_path / "state" / "operator" / "operator.jwt").read_text()
    names(tmp_path)
    assert (tmp_path / "state" / "operator" / "operator.jwt").read_text() == before


def test_a_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port} is taken"):
            mesh.choose_port(port)


def test_plant_writes_a_mesh_toml_that_can_be_read(tmp_path: Path) -> None:
    home = mesh.plant(tmp_path / "home", replicas=3)
    found = config.load(home.path / config.FILE)
    assert (found.replicas, found.journal.replicas, found.journal.max_bytes) == (3, 3, 10 * GIB)


@pytest.mark.parametrize("disk", [128 * 1024**2, 2 * GIB, 12 * GIB])
def test_streams_reserve_no_more_than_there_is(tmp_path: Path, disk: int) -> None:
    found = config.load(mesh.plant(tmp_path / "home", disk=disk).path / config.FILE)
    sizes = [each.max_bytes for each in (found.journal, found.dead, found.schedules, found.audit)]
    assert 0.9 * disk < sum(sizes) <= disk
    assert min(sizes) > 0


def test_a_large_disk_changes_nothing(tmp_path: Path) -> None:
    homes = [mesh.plant(tmp_path / name, disk=disk) for name, disk in (("a", None), ("b", 1 << 40))]
    assert len({(home.path / config.FILE).read_text() for home in homes}) == 1


def test_too_full_a_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "_LEAST", 1 << 60)
    with pytest.raises(SetupError, match="MiB left, a mesh needs"):
        names(tmp_path)


@pytest.mark.parametrize("target", ["a:b", "shop.orders:service", "_a.b1:c.d"])
def test_a_target(target: str) -> None:
    assert mesh.is_target(target)


@pytest.mark.parametrize("target", ["orders", "a.py", ":a", "a:", "a b:c", "../a:b", "-a:b"])
def test_no_target(target: str) -> None:
    assert not mesh.is_target(target)
