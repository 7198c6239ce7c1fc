"""The directory: which actions there are, of what is declared and what lives."""

from __future__ import annotations

import msgspec
import pytest
from nats.aio.msg import Msg

from tenantry.bus import Bus
from tenantry.messages import ActionInfo, Alive, Declaration, Kind, Override, Tenant
from tenantry_workers.router.directory import Directory, Known


@pytest.fixture
def directory() -> Directory:
    return Directory(Bus([]))


def declare(
    directory: Directory,
    version: str = "1.0.0",
    service: str = "orders",
    /,
    **actions: tuple[Kind, bool],
) -> None:
    declaration = Declaration(
        service=service,
        version=version,
        actions=tuple(
            ActionInfo(name=name, kind=kind, public=public, timeout=7.0)
            for name, (kind, public) in actions.items()
        ),
    )
    key = f"{service}.{version}"
    directory._declared.rows[key] = declaration
    directory._redeclared(key, declaration)


def record(name: str, **fields: object) -> bytes:
    """A tenant as it lies in the bucket."""
    tenant = Tenant(id=name, plan="standard", created=1.0, updated=1.0)
    return msgspec.json.encode(msgspec.structs.replace(tenant, **fields))


def withdraw(directory: Directory, version: str, service: str = "orders") -> None:
    key = f"{service}.{version}"
    del directory._declared.rows[key]
    directory._redeclared(key, None)


def live(directory: Directory, version: str = "1.0.0", instance: str = "i1") -> None:
    directory._members.hear(Alive(service="orders", version=version, instance=instance))


async def disconnect(directory: Directory, body: bytes) -> None:
    message = Msg(_client=None, subject="platform.disconnects", data=body)  # type: ignore[arg-type]
    await directory._on_disconnect(message)


def test_what_is_declared_is_known_but_not_live(directory: Directory) -> None:
    declare(directory, place=("request", True))
    assert directory.actions == {"orders.place": Known("request", True, 7.0, False)}


def test_it_is_live_once_an_instance_is(directory: Directory) -> None:
    declare(directory, place=("request", True))
    live(directory)
    assert directory.actions["orders.place"].live


def test_it_is_live_too_when_the_instance_came_first(directory: Directory) -> None:
    live(directory)
    declare(directory, place=("request", True))
    assert directory.actions["orders.place"].live


def test_one_instance_of_two_is_enough(directory: Directory) -> None:
    declare(directory, place=("request", True))
    live(directory, instance="i1")
    live(directory, instance="i2")
    directory._members.lose("i1")
    assert directory.actions["orders.place"].live


def test_without_any_instance_it_is_known_still(directory: Directory) -> None:
    declare(directory, place=("request", True))
    live(directory)
    directory._members.lose("i1")
    assert not directory.actions["orders.place"].live


def test_where_none_lives_the_newest_version_counts(directory: Directory) -> None:
    for version in ("1.9.0", "1.10.0", "1.10.0-rc.1"):
        declare(directory, version, **{f"v{version[2]}_{len(version)}": ("command", True)})
    assert set(directory.actions) == {"orders.v1_6"}


def test_the_version_that_lives_counts_not_the_newest(directory: Directory) -> None:
    declare(directory, "1.0.0", old=("request", True))
    declare(directory, "2.0.0", new=("request", True))
    live(directory, "1.0.0")
    assert set(directory.actions) == {"orders.old"}


def test_versions_side_by_side_add_up(directory: Directory) -> None:
    declare(directory, "1.0.0", old=("request", True), both=("request", False))
    declare(directory, "2.0.0", new=("request", True), both=("request", True))
    live(directory, "1.0.0", "i1")
    live(directory, "2.0.0", "i2")
    assert set(directory.actions) == {"orders.old", "orders.new", "orders.both"}


@pytest.mark.parametrize("order", [("1.0.0", "2.0.0"), ("2.0.0", "1.0.0")])
def test_where_they_differ_the_newest_of_those_that_live_decides(
    directory: Directory, order: tuple[str, str]
) -> None:
    for version in order:
        declare(directory, version, place=("request", version == "2.0.0"))
        live(directory, version, f"i{version}")
    assert directory.actions["orders.place"].public


def test_an_action_that_is_withdrawn_goes(directory: Directory) -> None:
    declare(directory, place=("request", True), cancel=("request", True))
    declare(directory, place=("request", True))
    assert set(directory.actions) == {"orders.place"}


def test_a_service_that_is_withdrawn_goes(directory: Directory) -> None:
    declare(directory, place=("request", True))
    withdraw(directory, "1.0.0")
    assert directory.actions == {}


def test_a_service_whose_name_begins_the_same_is_another(directory: Directory) -> None:
    declare(directory, "1.0.0", "orders", place=("request", True))
    declare(directory, "1.0.0", "orders_eu", place=("request", True))
    withdraw(directory, "1.0.0", "orders")
    assert set(directory.actions) == {"orders_eu.place"}


def test_an_instance_lives_before_its_declaration_is_here(directory: Directory) -> None:
    declare(directory, "1.0.0", place=("request", True))
    live(directory, "9.9.9")
    assert directory.actions["orders.place"].live


@pytest.mark.parametrize("version", ["latest", "", "1", "1.0.0-01", "x.y.z", "1.0.0-" + "9" * 5000])
def test_a_version_that_is_none_hides_no_other(directory: Directory, version: str) -> None:
    declare(directory, "1.0.0", place=("request", True))
    declare(directory, version, evil=("request", True))
    assert set(directory.actions) == {"orders.place"}


# the server's own word that a connection is gone


async def test_a_connection_that_is_gone_takes_its_instance_along(directory: Directory) -> None:
    declare(directory, place=("request", True))
    live(directory, instance="i1")
    await disconnect(directory, b'{"client": {"name": "orders+billing/i1", "id": 7}}')
    assert not directory.actions["orders.place"].live


@pytest.mark.parametrize("name", ["orders+billing/i2", "i1", "orders", ""])
async def test_another_connection_that_is_gone_takes_nothing_along(
    directory: Directory, name: str
) -> None:
    declare(directory, place=("request", True))
    live(directory, instance="i1")
    await disconnect(directory, f'{{"client": {{"name": "{name}"}}}}'.encode())
    assert directory.actions["orders.place"].live


async def test_a_connection_without_a_name_takes_nothing_along(directory: Directory) -> None:
    declare(directory, place=("request", True))
    live(directory)
    await disconnect(directory, b'{"client": {}}')
    assert directory.actions["orders.place"].live


def test_tenants_with_the_same_plan_and_state_share_one_row(directory: Directory) -> None:
    for name in ("acme", "globex"):
        directory.tenants._take(name, record(name))
    assert directory.tenants.rows["acme"] is directory.tenants.rows["globex"]


def test_a_tenant_with_limits_of_its_own_has_a_row_of_its_own(directory: Directory) -> None:
    directory.tenants._take("acme", record("acme"))
    directory.tenants._take("globex", record("globex", override=Override(rate=7.0)))
    assert directory.tenants.rows["acme"].override is None
    assert directory.tenants.rows["globex"].override == Override(rate=7.0)


def test_a_tenant_that_is_suspended_leaves_the_others_as_they_are(directory: Directory) -> None:
    for name in ("acme", "globex"):
        directory.tenants._take(name, record(name))
    directory.tenants._take("acme", record("acme", state="suspended"))
    assert directory.tenants.rows["acme"].state == "suspended"
    assert directory.tenants.rows["globex"].state == "active"
