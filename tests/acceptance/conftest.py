from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cli import SHOP, Cli, Inside, soon


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line as processes, in an empty folder where nothing runs."""
    return Cli(tmp_path)


@pytest.fixture
def alone(tmp_path: Path) -> Cli:
    """The command line in this process, in an empty folder where nothing runs."""
    return Inside(tmp_path)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line as processes, beside a mesh with the shop's services and a tenant."""
    cli = Cli(tmp_path_factory.mktemp("shop"))
    with cli.up(*SHOP):
        cli.ok("tenants", "create", "acme")
        yield cli


@pytest.fixture(scope="session")
def mesh(shop: Cli) -> Cli:
    """The command line in this process, beside the same mesh."""
    return Inside(shop.folder)


@pytest.fixture
def tenant(mesh: Cli, request: pytest.FixtureRequest) -> str:
    """A tenant of this test alone."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:60].strip("-")
    mesh.ok("tenants", "create", name)
    # In this process the next command may be sooner than the router's news of the tenant.
    soon(lambda: "tenant_unknown" not in mesh("request", name, "nobody.nothing", "{}").err)
    return name
