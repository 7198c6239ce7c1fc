from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.servers import NatsServers, ServerChoice, add_options


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_report_header(config: pytest.Config) -> str:
    return f"nats servers: {config.getoption('servers')}"


@pytest.fixture(scope="session")
def nats_backend(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NatsServers]:
    """Starts servers: `backend = nats_backend(OperatorHome.create)`, then `backend.url`."""
    servers = NatsServers(
        ServerChoice.of(pytestconfig, os.environ), lambda: tmp_path_factory.mktemp("nats")
    )
    yield servers
    servers.close()
