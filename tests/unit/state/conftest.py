from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tenantry.bus import Bus
from tenantry.operator import OperatorHome
from tests.servers import NatsBackend, NatsServers
from tests.unit.bus.station import Station


@pytest.fixture(scope="session")
def apart(nats_backend: NatsServers) -> NatsBackend:
    """A server without a journal, so that a test may store what handlers leave."""
    return nats_backend(OperatorHome.create)


@pytest.fixture
async def bus(apart: NatsBackend) -> AsyncIterator[Bus]:
    """A connection that may do everything but read the edge."""
    async with Station(apart) as station:
        yield await station.connect()
