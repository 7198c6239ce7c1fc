"""How the tenants' account is pushed, and what is asked of a server that does not take it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tenantry.bus import Bucket, Bus, Message, Table
from tenantry.errors import Conflict, SetupError, Unavailable
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


def filled(doors: Doors, count: int, **fields: Any) -> None:
    """Note a tenant with so many revoked credentials, and one in force."""
    place = {"issued": 1.0, "scope": "plan:standard#0", "signer": doors._home.tenant_key}
    revoked = (Credential(public_key=f"U{n:055}", revoked=float(n), **place) for n in range(count))
    credentials = (*revoked, Credential(public_key="U" * 56, **place))
    common: dict[str, Any] = {"plan": "standard", "created": 1.0, "updated": 1.0}
    doors.noted("many", Tenant(id="many", credentials=credentials, **common, **fields))


async def test_no_more_credentials_are_issued_when_revoked_ones_fill_the_account(
    station: Station, bus: Bus
) -> None:
    doors = Doors(bus, bus, station.home, *tables(bus))
    filled(doors, 1_000)
    doors.check_room()
    filled(doors, 6_000)
    with pytest.raises(Conflict, match="6,000 revoked credentials fill"):
        doors.check_room()


async def test_all_that_is_revoked_of_a_tenant_that_is_there_is_in_the_account(
    station: Station, bus: Bus
) -> None:
    doors = Doors(bus, bus, station.home, *tables(bus))
    filled(doors, 20_000)
    assert len(doors.wanted().revoked) == 20_000


async def test_the_newest_of_deleted_tenants_are_in_the_account(station: Station, bus: Bus) -> None:
    doors = Doors(bus, bus, station.home, *tables(bus))
    filled(doors, 20_000, state="deleted")
    wanted = doors.wanted()
    assert f"U{19_999:055}" in wanted.revoked
    assert f"U{0:055}" not in wanted.revoked
    jwt = station.home.edge_claims(wanted.revoked, wanted.scopes)
    assert len(jwt) < bus.max_body


async def test_an_account_that_is_full_of_scopes_fits_too(station: Station, bus: Bus) -> None:
    """What room is counted for a scope and a revocation is enough."""
    doors = Doors(bus, bus, station.home, *tables(bus))
    signers = len(doors._signers()) - 1
    scopes = {f"plan:{'x' * 60}#{n}": n for n in range(doors._room // module._SCOPE // signers)}
    assert len(station.home.edge_claims({}, scopes)) < bus.max_body
    revoked = {f"U{n:055}": 1_800_000_000 for n in range(doors._room // module._REVOCATION)}
    assert len(station.home.edge_claims(revoked, {})) < bus.max_body
