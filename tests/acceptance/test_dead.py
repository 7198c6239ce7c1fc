"""`tenantry dead`: dead letters at the command line."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from tests.acceptance.cli import Cli, soon
from tests.acceptance.test_terminal import on_terminal
from tests.letters import lay, stored
from tests.mesh import journal

_numbers = itertools.count(1)


def letter(cli: Cli, tenant: str, sku: str = "A-1", **fields: Any) -> int:
    """Send a command of the shop, and lay it down as a dead letter; its number."""
    body = json.dumps({"orders": [{"sku": sku}]})
    seq = cli.ok("publish", tenant, "orders.import", body, "-o", "json").json["seq"]

    async def do() -> int:
        async with await cli.control() as bus:
            return await lay(bus, tenant, await stored(bus, seq), **fields)

    return asyncio.run(do())


async def many(cli: Cli, tenant: str, seq: int, count: int) -> list[int]:
    """Message `seq` of the journal as so many letters; their numbers."""
    async with await cli.control() as bus:
        entry = await stored(bus, seq)
        return [await lay(bus, tenant, entry._replace(seq=each)) for each in range(1, count + 1)]


async def redriven(cli: Cli, tenant: str) -> list[int]:
    """The numbers of the letters that the journal has again, in its order."""
    async with await cli.control() as bus:
        found = await journal(bus, tenant, "orders.import")
    ids = [each.headers["Nats-Msg-Id"] for each in found if "Tenant-Only" in each.headers]
    return [int(each.rpartition(".")[2]) for each in ids]


@pytest.fixture
def tenant(mesh: Cli) -> str:
    """A tenant of the test's own."""
    name = f"dead-{next(_numbers)}"
    mesh.ok("tenants", "create", name)
    soon(lambda: "nothing sold yet" in mesh("request", name, "ledger.total").err)
    return name


def numbers(cli: Cli, *which: str) -> list[int]:
    return [each["number"] for each in cli.ok("dead", "list", *which, "-o", "json").json]


def handled(cli: Cli) -> int:
    """How many commands the shop has handled."""
    (orders,) = cli.ok("services", "orders", "-o", "json").json
    return sum(each["handled"] for each in orders["actions"] if each["kind"] == "command")


def test_a_letter_is_listed(mesh: Cli, tenant: str) -> None:
    number = letter(mesh, tenant)
    (found,) = mesh.ok("dead", "list", "--tenant", tenant, "-o", "json").json
    assert found["number"] == number
    assert (found["tenant"], found["service"], found["action"]) == (
        tenant,
        "orders",
        "orders.import",
    )
    assert (found["reason"], found["attempts"]) == ("handler_failed", 3)


def test_a_table_has_a_line_for_each(mesh: Cli, tenant: str) -> None:
    number = letter(mesh, tenant)
    head, row = mesh.ok("dead", "list", "--tenant", tenant).out.splitlines()
    assert head.split()[:3] == ["NUMBER", "TENANT", "SERVICE"]
    assert row.split()[:3] == [str(number), tenant, "orders"]


def test_filters(mesh: Cli, tenant: str) -> None:
    old = letter(mesh, tenant, at=1_000_000.0)
    new = letter(mesh, tenant, reason="bad_message")
    mine = ("--tenant", tenant)
    assert numbers(mesh, *mine) == [old, new]
    assert numbers(mesh, *mine, "--since", "1h") == [new]
    assert numbers(mesh, *mine, "--until", "2000-01-01") == [old]
    assert numbers(mesh, *mine, "--reason", "bad_message") == [new]
    assert numbers(mesh, *mine, "--action", "orders.import") == [old, new]
    assert numbers(mesh, *mine, "--service", "ledger") == []


@pytest.mark.parametrize("verb", ["list", "redrive", "drop"])
def test_a_service_that_nothing_knows_is_told(mesh: Cli, verb: str) -> None:
    assert mesh.fails("dead", verb, "--service", "nope") == (
        "not_found: no service nope is known (`tenantry services` lists them)"
    )


@pytest.mark.parametrize("verb", ["list", "redrive", "drop"])
def test_an_action_that_nothing_knows_is_told(mesh: Cli, verb: str) -> None:
    assert mesh.fails("dead", verb, "--action", "orders.nope") == (
        "not_found: orders has no action nope (`tenantry services orders` lists them)"
    )


def test_a_service_and_an_action_without_letters_are_no_error(mesh: Cli) -> None:
    assert numbers(mesh, "--service", "ledger", "--action", "ledger.total") == []
    assert numbers(mesh, "--action", "tenants.tenant_deleted") == []


def test_letters_of_a_service_that_has_left_are_found(mesh: Cli, tenant: str) -> None:
    number = letter(mesh, tenant, service="left", action="left.long_ago")
    assert numbers(mesh, "--service", "left") == [number]
    assert numbers(mesh, "--service", "left", "--tenant", "acme") == []
    assert numbers(mesh, "--action", "left.long_ago", "--tenant", "acme") == []


def test_show_tells_everything_but_the_context(mesh: Cli, tenant: str) -> None:
    number = letter(mesh, tenant, "A-7")
    found = mesh.ok("dead", "show", str(number), "-o", "json").json
    assert found["body"] == {"orders": [{"sku": "A-7"}]}
    assert "traceparent" in found["headers"]
    assert "Tenant-Context" not in found["headers"]
    out = mesh.ok("dead", "show", str(number)).out
    assert "handler_failed: as the test wants it" in out
    assert found["headers"]["traceparent"].split("-")[1] in out
    assert '"sku": "A-7"' in out
    assert "Tenant-Context" not in out


def test_a_redrive_that_was_killed_can_be_repeated(shop: Cli, mesh: Cli, tenant: str) -> None:
    body = json.dumps({"orders": []})
    seq = mesh.ok("publish", tenant, "orders.import", body, "-o", "json").json["seq"]
    laid = asyncio.run(many(mesh, tenant, seq, 1000))
    command = ("dead", "redrive", "--tenant", tenant, "--yes")
    process = shop.start(*command)
    soon(lambda: len(numbers(mesh, "--tenant", tenant)) < 990)
    process.kill()
    process.wait()
    assert numbers(mesh, "--tenant", tenant)
    mesh.ok(*command)
    assert numbers(mesh, "--tenant", tenant) == []
    assert asyncio.run(redriven(mesh, tenant)) == laid


def test_there_is_no_such_letter(mesh: Cli) -> None:
    assert "no dead letter 999999" in mesh.fails("dead", "show", "999999")


def test_redrive_delivers_once_more(mesh: Cli, tenant: str) -> None:
    number = letter(mesh, tenant)
    soon(lambda: mesh("request", tenant, "ledger.total").code == 0)
    before = handled(mesh)
    assert mesh.ok("dead", "redrive", str(number)).out == "1 redriven\n"
    soon(lambda: handled(mesh) > before)
    assert numbers(mesh, "--tenant", tenant) == []


def test_redrive_tells_where_the_journal_has_it(mesh: Cli, tenant: str) -> None:
    number = letter(mesh, tenant)
    (told,) = mesh.ok("dead", "redrive", str(number), "-o", "json").json
    assert (told["number"], told["tenant"], told["result"]) == (number, tenant, "redriven")
    assert told["seq"] > 0


def test_redrive_by_filter(mesh: Cli, tenant: str) -> None:
    laid = [letter(mesh, tenant), letter(mesh, tenant), letter(mesh, tenant, service="ledger")]
    out = mesh.ok("dead", "redrive", "--tenant", tenant, "--service", "orders", "--yes").out
    assert out == "2 redriven\n"
    assert numbers(mesh, "--tenant", tenant) == laid[2:]


def test_a_dry_run_changes_nothing(mesh: Cli, tenant: str) -> None:
    laid = [letter(mesh, tenant), letter(mesh, tenant)]
    assert (
        mesh.ok("dead", "redrive", "--tenant", tenant, "--dry-run").out == "2 would be redriven\n"
    )
    assert numbers(mesh, "--tenant", tenant) == laid


def test_a_context_that_does_not_verify_wants_a_principal(mesh: Cli, tenant: str) -> None:
    number = letter(mesh, tenant, stored=1_000_000.0)
    done = mesh("dead", "redrive", str(number))
    assert (done.code, done.out) == (1, "1 refused\n")
    assert f"letter {number} of {tenant} refused" in done.err
    assert "--principal" in done.err
    assert mesh.ok("dead", "redrive", str(number), "--principal", "ops").out == "1 redriven\n"


def test_drop(mesh: Cli, tenant: str) -> None:
    laid = [letter(mesh, tenant), letter(mesh, tenant)]
    assert mesh.ok("dead", "drop", str(laid[0])).out == "1 dropped\n"
    assert numbers(mesh, "--tenant", tenant) == laid[1:]
    assert mesh.ok("dead", "drop", "--tenant", tenant).out == "1 dropped\n"
    assert numbers(mesh, "--tenant", tenant) == []


@pytest.mark.parametrize("verb", ["redrive", "drop"])
def test_a_filter_that_matches_many_wants_a_yes(mesh: Cli, tenant: str, verb: str) -> None:
    laid = [letter(mesh, tenant), letter(mesh, tenant)]
    error = mesh.misused("dead", verb, "--tenant", tenant)
    assert "2 dead letters of 1 tenant" in error
    assert "--yes" in error
    assert numbers(mesh, "--tenant", tenant) == laid


def test_on_a_terminal_it_asks(shop: Cli, mesh: Cli, tenant: str) -> None:
    laid = [letter(mesh, tenant), letter(mesh, tenant)]
    code, out = on_terminal(shop, "dead", "drop", "--tenant", tenant, typed="n\n")
    assert (code, "nothing was done" in out) == (2, True)
    assert numbers(mesh, "--tenant", tenant) == laid
    code, out = on_terminal(shop, "dead", "drop", "--tenant", tenant, typed="y\n")
    assert (code, "2 dropped" in out) == (0, True)
    assert numbers(mesh, "--tenant", tenant) == []


def test_nothing_that_is_meant_is_no_failure(mesh: Cli, tenant: str) -> None:
    assert mesh.ok("dead", "redrive", "--tenant", tenant).out == "no letter is meant\n"


@pytest.mark.parametrize("verb", ["redrive", "drop"])
def test_numbers_or_filters(mesh: Cli, verb: str) -> None:
    assert "which letters?" in mesh.misused("dead", verb)
    assert "exclude each other" in mesh.misused("dead", verb, "1", "--tenant", "acme")


@pytest.mark.parametrize("verb", ["redrive", "drop"])
def test_a_number_that_is_none_stops_before_anything_is_done(
    mesh: Cli, tenant: str, verb: str
) -> None:
    number = letter(mesh, tenant)
    assert "no dead letter 999999" in mesh.fails("dead", verb, str(number), "999999")
    assert numbers(mesh, "--tenant", tenant) == [number]


def test_names_that_can_not_be(mesh: Cli) -> None:
    assert "not a tenant id" in mesh.fails("dead", "list", "--tenant", "A.b")


@pytest.mark.parametrize("text", ["soon", "4711"])
def test_what_is_no_time(mesh: Cli, text: str) -> None:
    assert text in mesh.misused("dead", "list", "--since", text)


@pytest.mark.parametrize("verb", ["list", "redrive", "drop"])
def test_a_tenant_that_does_not_exist(mesh: Cli, verb: str) -> None:
    error = mesh.fails("dead", verb, "--tenant", "nobody")
    assert error.startswith("not_found: no tenant 'nobody'")
