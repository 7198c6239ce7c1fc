"""`mesh.toml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantry.errors import SetupError
from tenantry.runtime import config
from tenantry.runtime.config import MeshConfig
from tenantry.streams import AuditLimits, DeadLimits, JournalLimits, ScheduleLimits


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / config.FILE


def test_no_file_means_the_defaults(file: Path) -> None:
    assert config.load(file) == MeshConfig()


def test_an_empty_file_means_the_defaults(file: Path) -> None:
    file.write_text("")
    assert config.load(file) == MeshConfig()


def test_the_template_says_the_defaults(file: Path) -> None:
    file.write_text(config.TEMPLATE)
    assert config.load(file) == MeshConfig()


def test_the_template_names_every_field() -> None:
    tables = {"journal": JournalLimits, "dead": DeadLimits, "schedules": ScheduleLimits}
    tables |= {"audit": AuditLimits}
    fields = {*MeshConfig.__struct_fields__} - tables.keys()
    assert all(f"\n{field} = " in config.TEMPLATE for field in fields)
    for name, limits in tables.items():
        table = config.TEMPLATE.split(f"\n[{name}]\n")[1].split("\n[")[0]
        assert all(f"\n{field} = " in f"\n{table}" for field in limits.__struct_fields__)


def test_what_it_says_is_taken(file: Path) -> None:
    file.write_text("replicas = 3\n[journal]\nmax_age = 3600\nmax_bytes = -1\n")
    assert config.load(file) == MeshConfig(
        replicas=3, journal=JournalLimits(max_age=3600.0, max_bytes=-1)
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("replicass = 3", "replicass"),
        ("[journal]\nmax_bites = 3", "max_bites"),
        ("[jornal]", "jornal"),
        ("replicas = 2", r"\$\.replicas"),
        ('replicas = "3"', r"\$\.replicas"),
        ('[journal]\nmax_bytes = "much"', r"\$\.journal\.max_bytes"),
        ("[journal]\nmax_bytes = 1.5", r"\$\.journal\.max_bytes"),
        ("journal = 5", r"\$\.journal"),
        ("replicas = ", "mesh.toml"),
        ("replicas = 1\nreplicas = 1", "mesh.toml"),
    ],
)
def test_a_mistake_is_told_with_its_place(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(SetupError, match=told) as caught:
        config.load(file)
    assert str(file) in caught.value.message
    assert caught.value.hint


def test_what_is_not_utf8_is_refused(file: Path) -> None:
    file.write_bytes(b"replicas = 1 # \xff")
    with pytest.raises(SetupError, match=r"mesh\.toml"):
        config.load(file)


def test_what_cannot_be_read_is_told(file: Path) -> None:
    file.mkdir()
    with pytest.raises(SetupError, match="can't be read: Is a directory"):
        config.load(file)
