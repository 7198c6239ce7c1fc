from __future__ import annotations

from pathlib import Path

import pytest

from tenantry.operator import ServerOptions, render_server_conf
from tenantry.operator.reference import REFERENCE, write

INFRA = Path(__file__).parents[3] / "infra" / "nats"


@pytest.mark.parametrize("name", REFERENCE)
def test_a_reference_configuration_is_what_the_template_gives(name: str) -> None:
    assert (INFRA / name).read_text() == render_server_conf(REFERENCE[name])


def test_the_references_are_written_below_a_directory(tmp_path: Path) -> None:
    write(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.conf")} == set(REFERENCE)


def test_a_path_with_a_quote_stays_one_value() -> None:
    assert r'store_dir: "/a\"b"' in render_server_conf(ServerOptions(store_dir='/a"b'))


def test_an_environment_variable_is_left_to_the_server() -> None:
    assert "store_dir: $DATA\n" in render_server_conf(ServerOptions(store_dir="$DATA"))


def test_monitoring_is_off_unless_asked_for() -> None:
    assert "http:" not in render_server_conf(ServerOptions())


def test_monitoring_is_on_loopback_only() -> None:
    conf = render_server_conf(ServerOptions(host="0.0.0.0", http_port=8222))
    assert 'http: "127.0.0.1:8222"' in conf


def test_a_log_file_is_named() -> None:
    assert 'log_file: "n.log"' in render_server_conf(ServerOptions(log_file="n.log"))


def test_writing_through_is_asked_for() -> None:
    conf = render_server_conf(ServerOptions(sync_interval="always"))
    assert '\n  sync_interval: "always"' in conf
