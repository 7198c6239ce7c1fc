"""How the tenants' account is pushed, and what is asked of a server that does not take it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tenantry.bus import Bucket, Bus, Message, Table
from tenantry.errors import SetupError, Unavailable
from tenantry.messages import Credential, Plan, Tenant
from tenantry.operator import OperatorHome
from tenantry_workers.tenants import doors as module
from tenantry_workers.tenants.doors import Doors
from tests.unit.bus.station import Station


def tables(bus: Bus) -> tuple[Table[Tenant], Table[Plan]]:
    return Table(Bucket(bus, "tenants", Tenant)), Table(Bucket(bus, "plans", Plan))


@asynccontextmanager
async def server(bus: Bus, *answers: bytes) -> AsyncIterator[None]:
    """Answers pushes in the place of nats-server, in an account that is not its own."""
    left = list(answers)

    async def answer(message: Message) -> None:
        if left:
            await bus.answer(message, left.pop(0))

    subscription = await bus.subscribe("$SYS.REQ.CLAIMS.UPDATE", answer)
    try:
        yield
    finally:
        await subscription.stop()


async def test_what_the_server_refuses_is_pushed_again(
    station: Station, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY", 0.01)
    doors = Doors(bus, bus, station.home, *tables(bus))
    async with server(bus, b'{"error": {"description": "no"}}', b'{"data": {}}'):
        await doors.start()
        assert doors.signers
        await doors.stop()


async def test_who_waits_for_a_server_that_is_silent_hears_of_it(
    station: Station, bus: Bus
) -> None:
    doors = Doors(bus, bus, station.home, *tables(bus))
    async with server(bus, b'{"data": {}}'):
        await doors.start()
        doors._forget()
        with pytest.raises(Unavailable):
            await doors.settled(timeout=0.1)
        await doors.stop()


def with_credentials(*, issued: float, revoked: float | None = None) -> Tenant:
    key = Credential(public_key="U" + 55 * "A", issued=issued, revoked=revoked)
    return Tenant(id="acme", plan="p", created=1.0, updated=1.0, credentials=(key,))


async def test_credentials_of_a_replica_whose_clock_was_ahead_are_revoked(
    station: Station, bus: Bus
) -> None:
    tenants, plans = tables(bus)
    doors = Doors(bus, bus, station.home, tenants, plans)
    tenants.rows["acme"] = with_credentials(issued=1000.0, revoked=990.0)
    (until,) = doors.wanted().revoked.values()
    assert until > 1000


async def test_credentials_that_are_not_revoked_stay_so(station: Station, bus: Bus) -> None:
    tenants, plans = tables(bus)
    doors = Doors(bus, bus, station.home, tenants, plans)
    tenants.rows["acme"] = with_credentials(issued=1000.0)
    assert doors.wanted().revoked == {}


async def test_doors_that_were_never_opened_can_be_closed(station: Station, bus: Bus) -> None:
    doors = Doors(bus, bus, station.home, *tables(bus))
    await doors.stop()
    assert not doors.signers


async def test_a_directory_that_can_not_be_read_changes_nothing(
    station: Station, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_home: OperatorHome) -> bool:
        raise SetupError("it is on fire")

    doors = Doors(bus, bus, station.home, *tables(bus))
    async with server(bus, b'{"data": {}}'):
        await doors.start()
        signers = doors.signers
        monkeypatch.setattr(OperatorHome, "refresh", broken)
        doors._reread()
        await doors.settled()
        await doors.stop()
    assert doors.signers == signers
