from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tenantry.operator import OperatorHome
from tests.integration.operator.clients import Mesh
from tests.servers import NatsBackend


@pytest.fixture(scope="module")
def backend(nats_backend: Callable[..., NatsBackend]) -> NatsBackend:
    return nats_backend(OperatorHome.create)


@pytest.fixture(scope="module")
def home(backend: NatsBackend) -> OperatorHome:
    return OperatorHome.load(backend.home)


@pytest.fixture
async def mesh(home: OperatorHome, backend: NatsBackend, tmp_path: Path) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        yield Mesh(home, backend.url, tmp_path, stack)
