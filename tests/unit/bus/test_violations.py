"""Permission violations, from lines of nats-server's log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tenantry.bus import Bucket, Bus, Table
from tenantry.messages import Plan, Tenant
from tenantry.operator.keys import KeyPair, Kind
from tenantry.runtime.audit import Audit
from tenantry_workers.tenants import violations as following
from tenantry_workers.tenants.ledger import CredentialLedger
from tenantry_workers.tenants.violations import Violations
from tests.mesh import eventually


def tables(bus: Bus) -> tuple[Table[Tenant], Table[Plan]]:
    return Table(Bucket(bus, "tenants", Tenant)), Table(Bucket(bus, "plans", Plan))


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
    follower = Violations(path, told, tables(bus)[0], CredentialLedger())
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
    follower = Violations(path, told, tables(bus)[0], CredentialLedger())
    await follower.start()
    await asyncio.sleep(0)  # it looks once, in vain
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
    follower = Violations(path, told, tables(bus)[0], CredentialLedger())
    await follower.start()
    await follower.stop()
    assert not told.users()


async def test_a_log_that_cannot_be_read_is_tried_again(bus: Bus, told: Told, path: Path) -> None:
    path.mkdir()
    follower = Violations(path, told, tables(bus)[0], CredentialLedger())
    await follower.start()
    await asyncio.sleep(0)  # it looks once, in vain
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
    follower = Violations(path, told, tables(bus)[0], CredentialLedger())
    await follower.start()
    with path.open("a") as log:
        log.writelines(map(line, users))
    await hears(told, *users)
    await follower.stop()


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
    Violations(path, told, tables(bus)[0], CredentialLedger()).line(text)
    assert not told.users()


def test_a_subject_with_a_quote_is_whole(bus: Bus, told: Told, path: Path) -> None:
    Violations(path, told, tables(bus)[0], CredentialLedger()).line(
        line(subject='a.\\"x\\".b').strip()
    )
    assert told.subjects() == ['a.\\"x\\".b']
