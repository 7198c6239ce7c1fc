"""`tenantry services` and `tenantry status`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.cli import Cli

STOPPED = """
from tenantry import Context, Service

service = Service("stopped", version="0.9.0")

@service.request("ask")
async def ask(ctx: Context) -> None:
    pass
"""


@pytest.fixture(scope="module")
def found(mesh: Cli) -> dict[str, Any]:
    """All services by name, with one among them that has run and runs no more."""
    mesh.write("stopped.py", STOPPED)
    with mesh.foreground("run", "stopped:service") as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
    return {each["service"]: each for each in mesh.ok("services", "-o", "json").json}


def test_services_that_run_are_there(found: dict[str, Any]) -> None:
    assert {"orders", "ledger"} <= found.keys()


def test_a_running_service_has_its_instances(found: dict[str, Any]) -> None:
    assert len(found["orders"]["instances"]) == 1


def test_a_service_that_runs_no_more_has_none(found: dict[str, Any]) -> None:
    assert found["stopped"]["instances"] == []


def test_the_control_plane_is_there_too(found: dict[str, Any]) -> None:
    assert (found["tenants"]["platform"], found["orders"]["platform"]) == (True, False)


def test_actions_tell_kind_and_whether_they_are_public(found: dict[str, Any]) -> None:
    kinds = {each["name"]: (each["kind"], each["public"]) for each in found["orders"]["actions"]}
    assert kinds == {
        "place": ("request", True),
        "import": ("command", True),
        "placed": ("event", False),
    }


def test_actions_have_their_schemas(found: dict[str, Any]) -> None:
    place = next(each for each in found["orders"]["actions"] if each["name"] == "place")
    assert "PlaceOrder" in place["input"]["$defs"]
    assert "Order" in place["output"]["$defs"]


def test_followed_events_are_there(found: dict[str, Any]) -> None:
    assert "on orders.placed" in {each["name"] for each in found["ledger"]["actions"]}


def test_the_table_says_where_nothing_runs(mesh: Cli, found: dict[str, Any]) -> None:
    rows = [row.split() for row in mesh.ok("services").out.splitlines()]
    assert ["stopped", "0.9.0", "none", "ask", "request", "no", "0", "0"] in rows


def test_a_name_shows_one_service_whole(mesh: Cli) -> None:
    out = mesh.ok("services", "orders").out
    assert out.startswith("orders 1.0.0, 1 running: takes a shop's orders\n")
    assert '"PlaceOrder"' in out


def test_an_unknown_name_is_told(mesh: Cli) -> None:
    assert mesh.fails("services", "nothing") == (
        "not_found: no service nothing is known (`tenantry services` lists them)"
    )


def test_status_names_every_process(mesh: Cli) -> None:
    status = mesh.ok("status", "-o", "json").json
    journal = status["health"].pop("journal")
    assert (journal["stores"], journal["full"], journal["why"]) == (True, False, "")
    assert [each["name"] for each in status["children"]] == [
        "nats-server",
        "valkey",
        "tenants",
        "router",
        "orders",
        "ledger",
    ]
    assert status["health"] == {
        "nats": True,
        "routers": 1,
        "tenants": 1,
        "clocks": {},
        "redis": True,
        "why": "",
    }


def test_status_where_nothing_runs_is_a_failure(alone: Cli) -> None:
    done = alone("status", "-o", "json")
    assert (done.code, done.json["running"]) == (1, False)
