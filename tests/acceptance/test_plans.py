"""`tenantry plans …`."""

from __future__ import annotations

import msgspec
import pytest

from tests.acceptance.cli import Cli, soon


@pytest.fixture
def plan(mesh: Cli, request: pytest.FixtureRequest) -> str:
    """A plan of this test alone."""
    name = request.node.name.removeprefix("test_")[:50]
    mesh.write(f"{name}.toml", f"[{name}]\nrate = 7\nburst = 9\n")
    mesh.ok("plans", "apply", f"{name}.toml")
    return name


@pytest.fixture
def tenant(mesh: Cli, plan: str) -> str:
    """A tenant on that plan."""
    name = plan.replace("_", "-")
    mesh.ok("tenants", "create", name, "--plan", plan)
    return name


def test_the_plans_are_listed(mesh: Cli) -> None:
    shown = mesh.ok("plans").out
    assert {"standard", "premium", "business"} <= {line.split()[0] for line in shown.splitlines()}
    assert mesh.ok("plans", "list").out == shown


def test_a_plan_is_shown_as_the_document_that_makes_it(mesh: Cli) -> None:
    mesh.write("shown.toml", mesh.ok("plans", "show", "premium").out)
    assert mesh.ok("plans", "diff", "shown.toml").err == "no difference\n"


def test_a_plan_that_is_not_there_is_told(mesh: Cli) -> None:
    assert mesh.fails("plans", "show", "golden").startswith("not_found: no plan 'golden' (there")


def test_a_difference_is_shown_and_told_by_the_exit_code(mesh: Cli, plan: str) -> None:
    mesh.write("other.toml", f"[{plan}]\nrate = 8\nburst = 9\n")
    done = mesh("plans", "diff", "other.toml")
    assert done.code == 1
    assert done.out.splitlines()[1].split() == [plan, "rate", "7.0", "8.0"]


def test_what_is_applied_is_in_force_in_every_router(mesh: Cli, plan: str) -> None:
    mesh.write("more.toml", f"[{plan}]\nrate = 11\nburst = 9\n")
    done = mesh.ok("plans", "apply", "more.toml", "-o", "json").json
    assert [each["field"] for each in done["changes"]] == ["rate"]
    assert done["routers"]
    status = mesh.ok("plans", "status", "-o", "json").json
    assert {each["revision"] for each in status["routers"]} == {status["revision"]}


def test_applying_again_changes_nothing(mesh: Cli, plan: str) -> None:
    assert mesh.ok("plans", "apply", f"{plan}.toml").err == "no difference\n"


def test_a_wrong_document_leaves_all_as_it_was(mesh: Cli, plan: str) -> None:
    mesh.write("wrong.toml", f"[{plan}]\nrate = 99\n[broken]\nrate = -1\n")
    assert mesh.fails("plans", "apply", "wrong.toml") == (
        "setup: wrong.toml: [broken]: Expected `float` > 0.0 - at `$.rate`"
    )
    assert "rate = 7.0" in mesh.ok("plans", "show", plan).out


def test_an_override_holds_for_its_tenant_until_it_is_cleared(mesh: Cli, tenant: str) -> None:
    mesh.write("own.toml", "burst = 2\nrate = 0.001\n")
    mesh.ok("plans", "override", tenant, "own.toml", "--until", "30d", "--note", "trial")

    def sent() -> list[int]:
        return [mesh("publish", tenant, "orders.import", '{"orders": []}').code for _ in range(4)]

    shown = mesh.ok("tenants", "show", tenant, "-o", "json").json
    assert (shown["override"]["rate"], shown["override"]["note"]) == (0.001, "trial")
    assert sent() == [0, 0, 1, 1]
    mesh.ok("plans", "override", tenant, "--clear")
    soon(lambda: sent() == [0, 0, 0, 0])


def test_a_change_of_limits_is_an_event_of_the_tenant(mesh: Cli, tenant: str, plan: str) -> None:
    def told() -> list[str]:
        read = mesh.ok("journal", tenant, "-o", "json").out.splitlines()
        events = [msgspec.json.decode(line) for line in read]
        return [f"{each['service']}.{each['action']}" for each in events]

    mesh.write("own.toml", "burst = 2\n")
    mesh.ok("plans", "override", tenant, "own.toml")
    soon(lambda: told().count("tenants.resource_quota_updated") == 1)
    mesh.write("more.toml", f"[{plan}]\nrate = 8\nburst = 9\n")
    mesh.ok("plans", "apply", "more.toml")
    soon(lambda: told().count("tenants.resource_quota_updated") == 2)


def test_an_override_that_ended_is_refused(mesh: Cli, tenant: str) -> None:
    mesh.write("own.toml", "burst = 2\n")
    error = mesh.misused("plans", "override", tenant, "own.toml", "--until", "2020-01-01")
    assert error == "usage: the expiry 2020-01-01 lies in the past"


def test_an_override_of_nothing_is_refused(mesh: Cli, tenant: str) -> None:
    assert "give a document, or --clear" in mesh.misused("plans", "override", tenant)


def test_an_override_for_nobody_is_refused(mesh: Cli) -> None:
    mesh.write("own.toml", "burst = 2\n")
    assert mesh.fails("plans", "override", "nobody-here", "own.toml").startswith("not_found")
