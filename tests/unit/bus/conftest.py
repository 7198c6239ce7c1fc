from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tenantry.bus import Bus
from tenantry.operator import OperatorHome
from tests.servers import NatsBackend, NatsServers
from tests.unit.bus.station import Station


@pytest.fixture(scope="session")
def shared(nats_backend: NatsServers) -> NatsBackend:
    """A server that tests share: they must not stop it."""
    return nats_backend(OperatorHome.create)


@pytest.fixture(scope="module")
def own(nats_backend: NatsServers) -> Iterator[NatsBackend]:
    """A server of the module's own, to kill."""
    backend = nats_backend(OperatorHome.create)
    yield backend
    with contextlib.suppress(NotImplementedError):
        backend.close()


@pytest.fixture
async def station(shared: NatsBackend) -> AsyncIterator[Station]:
    async with Station(shared) as station:
        yield station


@pytest.fixture
async def frail(own: NatsBackend) -> AsyncIterator[Station]:
    """A station whose server may be killed; it runs when the test begins."""
    await asyncio.to_thread(own.start)
    async with Station(own) as station:
        yield station


@pytest.fixture
async def bus(station: Station) -> Bus:
    """A connection that may do everything but read the edge."""
    return await station.connect()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], None]:
    """Make a time of `tenantry.bus` shorter."""

    def shorten(name: str, seconds: float) -> None:
        monkeypatch.setattr(f"tenantry.bus.{name}", seconds)

    return shorten
