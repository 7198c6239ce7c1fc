"""`tenantry quota`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.cli import Cli, soon

PLAN = """
[metered]
rate = 100
burst = 100
concurrency = 3
journal_bytes = 1_000_000
connections = 20
subscriptions = 50

[[metered.rates]]
scope = "orders.place"
rate = 0.01
burst = 10
shadow = true

[[metered.quotas]]
period = "day"
amount = 4
hard = 6
between = "charge"
"""


@pytest.fixture(scope="module")
def metered(mesh: Cli) -> str:
    """A tenant whose plan has a limit of each kind."""
    mesh.write("metered.toml", PLAN)
    mesh.ok("plans", "apply", "metered.toml")
    mesh.ok("tenants", "create", "metered", "--plan", "metered")
    return "metered"


def limits(mesh: Cli, tenant: str) -> dict[str, dict[str, Any]]:
    shown = mesh.ok("quota", tenant, "-o", "json").json
    return {each["name"]: each for each in shown["limits"]}


def test_every_limit_is_shown(mesh: Cli, metered: str) -> None:
    found = limits(mesh, metered)
    names = {"rate", "burst", "orders.place", "concurrency", "body", "connections"}
    assert set(found) == names | {"subscriptions", "per-day", "journal-bytes"}
    assert found["orders.place"]["state"] == "shadow"


def test_a_quota_tells_used_left_and_what_holds(mesh: Cli, metered: str) -> None:
    for _ in range(5):
        mesh.ok("request", metered, "orders.place", '{"sku": "A-1"}')

    def standing() -> tuple[Any, ...]:
        found = limits(mesh, metered)["per-day"]
        return found["used"], found["amount"], found["limit"], found["state"]

    soon(lambda: standing() == (5, 4, 6, "charge"), 40.0)
    mesh.ok("request", metered, "orders.place", '{"sku": "A-1"}')
    error = mesh.fails("request", metered, "orders.place", '{"sku": "A-1"}')
    assert error.startswith("quota_exceeded: the 6 messages that the plan allows in a day are used")
    soon(lambda: standing() == (6, 4, 6, "refuses"))


def test_of_a_burst_it_tells_what_is_left_now(mesh: Cli, metered: str) -> None:
    def left() -> int:
        shown = mesh.ok("quota", metered, "-o", "json").json["limits"]
        bursts = [each for each in shown if each["kind"] == "messages at once"]
        assert bursts[0]["left"] <= 100
        return int(bursts[1]["left"])

    before = left()
    mesh("request", metered, "orders.place", '{"sku": "A-1"}')
    assert left() < before <= 10


def test_a_table_has_a_line_each(mesh: Cli, metered: str) -> None:
    head, *rows = mesh.ok("quota", metered).out.splitlines()
    assert head.split() == ["LIMIT", "OF", "USED", "RESERVED", "LEFT", "BEGINS", "ANEW"]
    assert len(rows) == 10


def test_the_journals_bytes_are_counted(mesh: Cli, metered: str) -> None:
    def standing() -> tuple[int, int]:
        found = limits(mesh, metered)["journal-bytes"]
        return found["used"], found["left"]

    soon(lambda: standing()[0] > 0 and sum(standing()) == 1_000_000)


def test_a_tenant_that_is_not_there_is_told(mesh: Cli) -> None:
    assert mesh.fails("quota", "nobody-here").startswith("not_found: no tenant 'nobody-here'")
