"""What is shipped works outside any checkout: the wheel in an empty virtual environment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.outside import run

ROOT = Path(__file__).parents[2]
SHOP = "examples.shop"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a virtual environment with the built wheel and its extra `local`."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, ROOT, cwd=folder)
    wheel = next(folder.glob("*.whl"))
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    programs = folder / "venv" / "bin"
    run(programs / "pip", "install", "-q", f"{wheel}[local]", cwd=folder)
    return programs


@pytest.fixture
def mesh(installed: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The program and a folder in which a mesh of the wheel's own runs."""
    tenantry = installed / "tenantry"
    run(tenantry, "up", "-d", "--port", "0", f"{SHOP}.orders:service", cwd=tmp_path)
    yield tenantry, tmp_path
    run(tenantry, "down", cwd=tmp_path)


@pytest.mark.slow
def test_the_wheel_serves_a_tenant(mesh: tuple[Path, Path]) -> None:
    tenantry, folder = mesh
    run(tenantry, "tenants", "create", "acme", cwd=folder)
    answer = run(tenantry, "request", "acme", "orders.place", '{"sku": "B-2"}', cwd=folder)
    assert '"total":399' in answer


@pytest.mark.slow
def test_the_wheel_has_its_types(installed: Path) -> None:
    place = run(
        installed / "python", "-c", "import tenantry; print(tenantry.__path__[0])", cwd=installed
    )
    assert (Path(place.strip()) / "py.typed").exists()
