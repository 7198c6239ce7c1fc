"""`tenantry journal TENANT`, each test with a tenant of its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tenantry.bus import store
from tests.acceptance.cli import Cli, soon

ORDERS = '{"orders": [{"sku": "B-2"}, {"sku": "C-3"}]}'
BUSY = ("orders.import", "orders.placed", "orders.placed")


@pytest.fixture
def tenant(mesh: Cli, tenant: str) -> str:
    """A tenant of this test alone, whose journal holds one command and its two events."""
    mesh.ok("publish", tenant, "orders.import", ORDERS, "--id", "batch-1")
    soon(lambda: len(lines(mesh, tenant, "--service", "orders")) == 3)
    return tenant


def lines(mesh: Cli, tenant: str, *options: str) -> list[dict[str, Any]]:
    out = mesh.ok("journal", tenant, "-o", "json", *options).out
    return [json.loads(line) for line in out.splitlines()]


def actions(mesh: Cli, tenant: str, *options: str) -> list[str]:
    return [f"{each['service']}.{each['action']}" for each in lines(mesh, tenant, *options)]


async def leave(mesh: Cli, tenant: str) -> None:
    """A message of a service that is in no catalogue."""
    async with await mesh.control() as bus:
        await store(bus, f"tenant.{tenant}.left.note", b"{}")


def test_all_of_a_tenant_is_shown_in_order(mesh: Cli, tenant: str) -> None:
    shown = lines(mesh, tenant)
    assert [each["seq"] for each in shown] == sorted(each["seq"] for each in shown)
    assert {each["tenant"] for each in shown} == {tenant}
    assert actions(mesh, tenant, "--service", "orders") == list(BUSY)


def test_a_message_is_shown_whole(mesh: Cli, tenant: str) -> None:
    command = lines(mesh, tenant, "--action", "orders.import")[0]
    assert command["body"] == json.loads(ORDERS)
    assert command["kind"] == "command"
    assert command["id"] == f"{tenant}.e.batch-1"
    assert command["size"] > len("[]")
    assert "traceparent" in command["headers"]


def test_the_context_is_not_shown(mesh: Cli, tenant: str) -> None:
    assert "Tenant-Context" not in mesh.ok("journal", tenant, "-o", "json").out


def test_a_table_has_a_line_each(mesh: Cli, tenant: str) -> None:
    head, *rows = mesh.ok("journal", tenant, "--service", "orders").out.splitlines()
    assert head.split() == ["SEQ", "TIME", "ACTION", "SIZE", "BODY"]
    assert [row.split()[2] for row in rows] == list(BUSY)


def test_messages_are_chosen_by_kind(mesh: Cli, tenant: str) -> None:
    assert actions(mesh, tenant, "--kind", "command") == ["orders.import"]
    assert "tenants.tenant_provisioned" in actions(mesh, tenant, "--kind", "event")


def test_messages_are_chosen_by_place(mesh: Cli, tenant: str) -> None:
    seqs = [each["seq"] for each in lines(mesh, tenant)]
    chosen = lines(mesh, tenant, "--since", str(seqs[1]), "--until", str(seqs[2]))
    assert [each["seq"] for each in chosen] == [seqs[1]]


def test_messages_are_chosen_by_time(mesh: Cli, tenant: str) -> None:
    assert len(lines(mesh, tenant, "--since", "1h")) == len(lines(mesh, tenant))
    assert lines(mesh, tenant, "--until", "1h") == []
    assert lines(mesh, tenant, "--since", "2099-01-01") == []
    assert len(lines(mesh, tenant, "--until", "2099-01-01")) == len(lines(mesh, tenant))


def test_the_first_and_the_last_are_shown(mesh: Cli, tenant: str) -> None:
    whole = lines(mesh, tenant)
    assert lines(mesh, tenant, "--limit", "2") == whole[:2]
    assert lines(mesh, tenant, "--last", "2") == whole[-2:]
    assert lines(mesh, tenant, "--last", "1", "--kind", "command") == [
        each for each in whole if each["kind"] == "command"
    ]
    assert lines(mesh, tenant, "--last", "99") == whole


def test_those_to_come_are_followed(mesh: Cli, tenant: str) -> None:
    mesh.ok("publish", tenant, "orders.import", '{"orders": []}')
    followed = lines(mesh, tenant, "-f", "--limit", "4", "--service", "orders")
    assert [each["action"] for each in followed] == ["import", "placed", "placed", "import"]


def test_an_unknown_tenant_is_told(mesh: Cli) -> None:
    assert mesh.fails("journal", "nobody").startswith("not_found: no tenant 'nobody'")


def test_a_service_or_action_that_nothing_knows_is_told(mesh: Cli) -> None:
    assert mesh.fails("journal", "acme", "-f", "--service", "nope") == (
        "not_found: no service nope is known (`tenantry services` lists them)"
    )
    assert mesh.fails("journal", "acme", "--action", "orders.nope") == (
        "not_found: orders has no action nope (`tenantry services orders` lists them)"
    )


def test_a_service_without_messages_is_no_error(mesh: Cli, tenant: str) -> None:
    assert lines(mesh, tenant, "--service", "ledger") == []
    assert lines(mesh, tenant, "--action", "orders.place") == []


def test_a_service_that_has_left_its_messages_is_no_error(mesh: Cli, tenant: str) -> None:
    asyncio.run(leave(mesh, "acme"))
    assert actions(mesh, "acme", "--service", "left") == ["left.note"]
    assert lines(mesh, tenant, "--service", "left") == []
    assert lines(mesh, tenant, "--action", "left.note") == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--since", "soon"), "'soon' is neither a sequence nor a time"),
        (("--limit", "1", "--last", "1"), "--limit counts from the start"),
        (("-f", "--until", "5"), "--follow has no end"),
        (("--service", "a", "--action", "b.c"), "b.c is no action of a"),
    ],
)
def test_a_wrong_call_is_told(mesh: Cli, options: tuple[str, ...], why: str) -> None:
    assert why in mesh.misused("journal", "acme", *options)


def test_a_tenant_may_be_named_like_a_command(mesh: Cli) -> None:
    mesh.ok("tenants", "create", "export")
    found = mesh.ok("journal", "read", "export", "-o", "json").out
    assert "tenant_provisioned" in found


def test_a_range_that_ends_before_it_begins(mesh: Cli) -> None:
    error = mesh.misused("journal", "acme", "--since", "5", "--until", "3")
    assert error == "usage: from 5 until 3 there is nothing"
