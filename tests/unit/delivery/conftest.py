"""Real servers for the parts of delivery that speak to NATS; the pure parts need none of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tenantry.bus import Bus
from tenantry.delivery import timing
from tests.unit.bus.conftest import bus, frail, own, shared, station
from tests.unit.delivery.instances import Instances, instances

__all__ = ["bus", "frail", "own", "shared", "station"]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the times of the leases shorter, in about the same proportions."""
    times = {"RENEW": 0.15, "LEASE": 0.4, "TAKEOVER": 0.8, "WATCH": 0.02}
    for name, seconds in times.items():
        monkeypatch.setattr(timing, name, seconds)


@pytest.fixture
async def crowd(bus: Bus, short: None) -> AsyncIterator[Instances]:
    """The instances of a fresh service, on leases that are short."""
    async with instances(bus) as crowd:
        yield crowd
