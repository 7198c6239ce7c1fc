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


@pytest.fixture
def wired(mesh: Cli, request: pytest.FixtureRequest) -> str:
    """A tenant on a plan of its own name that bounds subscriptions."""
    name = f"w{abs(hash(request.node.name)) % 10**8}"
    mesh.write(f"{name}.toml", f"[{name}]\nsubscriptions = 5\n")
    mesh.ok("plans", "apply", f"{name}.toml")
    mesh.ok("tenants", "create", name, "--plan", name)
    return name


def test_who_changes_subscriptions_is_told_that_connections_are_cut(mesh: Cli, wired: str) -> None:
    mesh.write("wired.toml", f"[{wired}]\nsubscriptions = 6\n")
    told = f"`apply` cuts the connections of tenants on {wired} off once"
    assert told in mesh("plans", "diff", "wired.toml").err
    mesh.write("rated.toml", f"[{wired}]\nsubscriptions = 5\nrate = 6\n")
    assert told not in mesh("plans", "diff", "rated.toml").err


def test_who_moves_a_tenant_is_told_which_credentials_stay_behind(mesh: Cli, wired: str) -> None:
    (credential,) = mesh.ok("tenants", "show", wired, "-o", "json").json["credentials"]
    moved = mesh.ok("tenants", "set-plan", wired, "premium").err
    assert "these credentials keep the limit of before" in moved
    assert credential["public_key"] in moved
    assert mesh.ok("tenants", "set-plan", wired, wired).err == ""


def test_an_own_number_of_subscriptions_wants_new_credentials(mesh: Cli, wired: str) -> None:
    mesh.write("more.toml", "subscriptions = 50\n")
    assert "tenants credentials issue" in mesh.ok("plans", "override", wired, "more.toml").err
    first = mesh.ok("tenants", "show", wired, "-o", "json").json["credentials"][0]["public_key"]
    mesh.ok("tenants", "credentials", "issue", wired, "--name", "new")
    mesh.ok("tenants", "credentials", "revoke", wired, first)
    assert mesh.ok("plans", "override", wired, "more.toml", "--note", "again").err == ""


def test_an_own_bound_of_the_journal_is_held_against_the_plan(mesh: Cli, tenant: str) -> None:
    mesh.write("tight.toml", "journal_bytes = 100\n")
    error = mesh.fails("plans", "override", tenant, "tight.toml")
    assert error.startswith("bad_message: journal_bytes 100 is less than max_body 262144")
    mesh.write("both.toml", "journal_bytes = 100\nmax_body = 100\n")
    mesh.ok("plans", "override", tenant, "both.toml")
