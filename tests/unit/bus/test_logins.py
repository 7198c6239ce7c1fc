"""What nats-server's word on a refused login is taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantry.bus import Bucket, Bus, Message, Table
from tenantry.messages import Plan, Tenant
from tenantry.operator import OperatorHome
from tenantry.operator import creds as creds_files
from tenantry.runtime.audit import Audit
from tenantry_workers.tenants.doors import Doors
from tenantry_workers.tenants.logins import RefusedLogins
from tests.unit.bus.station import Station


def tables(bus: Bus) -> tuple[Table[Tenant], Table[Plan]]:
    return Table(Bucket(bus, "tenants", Tenant)), Table(Bucket(bus, "plans", Plan))


@pytest.fixture
def logins(station: Station, bus: Bus) -> RefusedLogins:
    tenants, plans = tables(bus)
    doors = Doors(bus, bus, station.home, tenants, plans)
    edge = station.home.validate_edge(station.home.edge_claims({}))
    doors.signers = frozenset(scoped.key for scoped in edge.signing_keys)
    return RefusedLogins(bus, Audit(bus, "tenants", "1"), doors, tenants)


def test_credentials_without_a_record_are_told_as_that(
    station: Station, logins: RefusedLogins
) -> None:
    jwt = creds_files.parse(station.home.tenant_creds("acme")).jwt
    found = logins.judge(jwt)
    assert (found.kind, found.tenant) == ("refused_credentials", "acme")
    assert "no record" in found.why


@pytest.mark.parametrize("jwt", ["x", "a.b.c", "e30.e30.e30", "." * 9000])
def test_what_is_no_jwt_is_forged(logins: RefusedLogins, jwt: str) -> None:
    found = logins.judge(jwt)
    assert (found.kind, found.tenant, found.user, found.claimed) == (
        "forged_credentials",
        "",
        "",
        "",
    )


def test_credentials_of_the_mesh_are_not_a_tenants(station: Station, logins: RefusedLogins) -> None:
    jwt = creds_files.parse(station.home.issue_role("service", "x", services=("orders",))).jwt
    assert logins.judge(jwt).kind == "forged_credentials"


def test_another_operators_credentials_are_forged(logins: RefusedLogins, tmp_path: Path) -> None:
    other = OperatorHome.create(tmp_path / "other")
    jwt = creds_files.parse(other.tenant_creds("acme")).jwt
    found = logins.judge(jwt)
    assert (found.kind, found.tenant) == ("forged_credentials", "")


async def test_an_event_that_cannot_be_read_ends_nothing(logins: RefusedLogins) -> None:
    await logins._on_refused(Message("x", "", b"no json"))
    await logins._on_refused(Message("x", "", b'{"server": {"id": "N"}, "client": {"id": 1}}'))
    assert [source.kind for source in logins._audit._sources] == ["no_credentials"]
