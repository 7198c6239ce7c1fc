"""How the tenants' account is pushed, and what is asked of a server that does not take it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tenantry.bus import Bucket, Bus, Message, Table
from tenantry.errors import Unavailable
from tenantry.messages import Plan, Tenant
from tenantry.operator import OperatorHome
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind
from tenantry.runtime.audit import Audit
from tenantry_workers.tenants import doors as module
from tenantry_workers.tenants import violations as following
from tenantry_workers.tenants.doors import Doors
from tenantry_workers.tenants.logins import RefusedLogins
from tenantry_workers.tenants.violations import Violations
from tests.mesh import eventually
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
    doors = Doors(bus, station.home, *tables(bus))
    async with server(bus, b'{"error": {"description": "no"}}', b'{"data": {}}'):
        await doors.start()
        assert doors.signers
        await doors.stop()


async def test_who_waits_for_a_server_that_is_silent_hears_of_it(
    station: Station, bus: Bus
) -> None:
    doors = Doors(bus, station.home, *tables(bus))
    async with server(bus, b'{"data": {}}'):
        await doors.start()
        doors._forget()
        with pytest.raises(Unavailable):
            await doors.settled(timeout=0.1)
        await doors.stop()


# what was shown at a refused login


@pytest.fixture
def logins(station: Station, bus: Bus) -> RefusedLogins:
    tenants, plans = tables(bus)
    doors = Doors(bus, station.home, tenants, plans)
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
    jwt = creds_files.parse(station.home.issue_role("service", "x")).jwt
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


# the server's log

USER, ACCOUNT = (KeyPair.generate(kind).public_key for kind in (Kind.USER, Kind.ACCOUNT))
LINE = (
    f'[1] 2026/11/21 13:20:21.974374 [ERR] 127.0.0.1:57432 - cid:7 - "v2:python3:x" - '
    f'"{ACCOUNT}/edge/jwt:{{user}}" - Publish Violation - Subject "{{subject}}"\n'
)


class Told(Audit):
    """Remembers what it is told."""

    def subjects(self) -> list[str]:
        return [each.details["subject"] for each in self._sources.values()]

    def users(self) -> set[str]:
        return {source.user for source in self._sources}


@pytest.fixture
def told(bus: Bus) -> Told:
    return Told(bus, "tenants", "1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nats.log"


def some_users(count: int) -> list[str]:
    return [KeyPair.generate(Kind.USER).public_key for _ in range(count)]


def line(user: str = USER, subject: str = "tenant.globex.a.b") -> str:
    return LINE.format(user=user, subject=subject)


async def hears(told: Told, *users: str) -> None:
    async def all_of_them() -> bool:
        return told.users() == set(users)

    await eventually(all_of_them)


async def test_only_what_is_written_from_now_on_is_told(bus: Bus, told: Told, path: Path) -> None:
    old, new = some_users(2)
    path.write_text(line(old))
    follower = Violations(path, told, tables(bus)[0])
    await follower.start()
    with path.open("a") as log:
        log.write("[1] a line of another kind\n")
        log.write(line(new))
    await hears(told, new)
    await follower.stop()


async def test_a_log_that_comes_later_and_is_rotated_is_followed(
    bus: Bus, told: Told, path: Path
) -> None:
    first, second, third = some_users(3)
    follower = Violations(path, told, tables(bus)[0])
    await follower.start()
    path.write_text(line(first))
    await hears(told, first)
    path.rename(path.with_suffix(".1"))

    async def missed() -> bool:
        return not path.exists() and not follower._read()

    await eventually(missed)
    path.write_text(line(second))
    await hears(told, first, second)
    path.write_text("")  # cut short

    async def begun_anew() -> bool:
        return follower._file is None or follower._file.tell() == 0

    await eventually(begun_anew)
    path.write_text(line(third)[: len(line(third)) // 2])
    with path.open("a") as log:
        log.write(line(third)[len(line(third)) // 2 :])
    await hears(told, first, second, third)
    await follower.stop()


async def test_a_log_that_is_none_can_be_stopped(bus: Bus, told: Told, path: Path) -> None:
    follower = Violations(path, told, tables(bus)[0])
    await follower.start()
    await follower.stop()
    assert not told.users()


async def test_a_log_that_cannot_be_read_is_tried_again(bus: Bus, told: Told, path: Path) -> None:
    path.mkdir()
    follower = Violations(path, told, tables(bus)[0])
    await follower.start()
    path.rmdir()
    path.write_text(line())
    await hears(told, USER)
    await follower.stop()


async def test_much_at_once_is_read_in_pieces(
    bus: Bus, told: Told, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_CHUNK", 64)
    users = some_users(5)
    path.write_text("")
    follower = Violations(path, told, tables(bus)[0])
    await follower.start()
    with path.open("a") as log:
        log.writelines(map(line, users))
    await hears(told, *users)
    await follower.stop()


def test_whose_a_key_is_is_remembered_of_a_bounded_number(
    bus: Bus, told: Told, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_KNOWN", 2)
    follower = Violations(path, told, tables(bus)[0])
    for user in some_users(5):
        follower.line(line(user))
        assert len(follower._users) <= 2
    assert len(told.users()) == 5


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        f'x - "{ACCOUNT}/e/jwt:{USER}" - Publish Violation - Subject "a.b"',
        LINE.format(user="UNOKEY", subject="a.b"),
        LINE.format(user=USER, subject="a.b")[4:],
    ],
)
def test_another_line_is_passed_over(bus: Bus, told: Told, path: Path, text: str) -> None:
    Violations(path, told, tables(bus)[0]).line(text)
    assert not told.users()


def test_a_subject_with_a_quote_is_whole(bus: Bus, told: Told, path: Path) -> None:
    Violations(path, told, tables(bus)[0]).line(line(subject='a.\\"x\\".b').strip())
    assert told.subjects() == ['a.\\"x\\".b']
