"""`tenantry tenants …`, each test with a tenant of its own."""

from __future__ import annotations

import stat
import time

from tenantry.operator import creds as creds_files
from tests.acceptance.cli import Cli, soon

ORDER = '{"sku": "A-1"}'


def test_credentials_are_for_their_owner_alone(mesh: Cli) -> None:
    assert stat.S_IMODE((mesh.folder / "acme.creds").stat().st_mode) == 0o600


def test_an_existing_file_is_not_written_over(mesh: Cli) -> None:
    mesh.write("initech.creds", "precious")
    assert mesh.fails("tenants", "create", "initech") == (
        "setup: initech.creds exists already (move it away, or name another with --creds-file)"
    )
    assert "not_found" in mesh.fails("tenants", "show", "initech")


def test_a_creation_that_was_cut_off_is_repeated(mesh: Cli) -> None:
    mesh.ok("tenants", "create", "cut-off")
    file = mesh.folder / "cut-off.creds"
    key = creds_files.parse(file.read_text()).key
    file.write_text(creds_files.render("", key))  # as a crash before its end leaves it
    mesh.ok("tenants", "create", "cut-off")
    mesh.ok("request", "cut-off", "orders.place", ORDER)


def test_a_tenant_that_exists_leaves_no_file(mesh: Cli) -> None:
    file = mesh.folder / "second.creds"
    error = mesh.fails("tenants", "create", "acme", "--creds-file", str(file))
    assert error.startswith("conflict: ")
    assert not file.exists()


def test_a_folder_that_is_not_there_is_told_before_anything_is_asked(mesh: Cli) -> None:
    error = mesh.fails("tenants", "create", "umbrella", "--creds-file", "no/such/u.creds")
    assert error.startswith("setup: no/such/u.creds can't be written: No such file or directory")


def test_a_plan_that_is_not_there_is_told(mesh: Cli) -> None:
    assert "golden" in mesh.fails("tenants", "create", "umbrella", "--plan", "golden")


def test_an_id_that_can_not_be_one_is_told(mesh: Cli) -> None:
    assert mesh.fails("tenants", "create", "Not_One").startswith("bad_subject: 'Not_One'")


def test_show_tells_plan_and_state(mesh: Cli) -> None:
    shown = mesh.ok("tenants", "show", "acme", "-o", "json").json
    assert (shown["id"], shown["plan"], shown["state"]) == ("acme", "standard", "active")


def test_an_unknown_tenant_is_told(mesh: Cli) -> None:
    assert mesh.fails("tenants", "show", "nobody").startswith("not_found: ")


def test_the_list_holds_the_tenant(mesh: Cli) -> None:
    rows = mesh.ok("tenants", "list").out.splitlines()
    assert rows[0].split() == ["TENANT", "PLAN", "STATE", "CREATED", "CREDENTIALS"]
    assert any(row.startswith("acme ") and row.split()[-1] != "0" for row in rows)


def test_the_list_of_one_state_leaves_out_the_others(mesh: Cli) -> None:
    found = mesh.ok("tenants", "list", "--only", "deleted", "-o", "json").json
    assert "acme" not in {each["id"] for each in found}


def test_a_suspended_tenant_is_refused_until_it_is_resumed(mesh: Cli, tenant: str) -> None:
    mesh.ok("tenants", "suspend", tenant, "--reason", "unpaid")
    error = mesh.fails("request", tenant, "orders.place", ORDER)
    assert error.startswith("tenant_suspended: ")
    mesh.ok("tenants", "resume", tenant)
    mesh.ok("request", tenant, "orders.place", ORDER)


def test_set_plan_changes_the_plan(mesh: Cli, tenant: str) -> None:
    said = mesh.ok("tenants", "set-plan", tenant, "premium").out
    assert said == f"{tenant} is on the plan premium\n"


def test_delete_without_a_terminal_wants_yes(mesh: Cli) -> None:
    assert mesh.misused("tenants", "delete", "acme") == (
        "usage: deleting acme has to be confirmed (give --yes, or use a terminal)"
    )


def test_a_deleted_tenant_may_not_connect(mesh: Cli, tenant: str) -> None:
    mesh.ok("tenants", "delete", tenant, "--yes")
    soon(lambda: "Authorization" in mesh("request", tenant, "orders.place", ORDER).err)


def test_issued_credentials_work_and_revoked_ones_do_not(mesh: Cli, tenant: str) -> None:
    options = ("--name", "till 2", "--expires", "30d", "-o", "json")
    issued = mesh.ok("tenants", "credentials", "issue", tenant, *options).json
    assert issued["file"] == f"{tenant}-till-2.creds"
    assert 29 < (issued["credential"]["expires"] - time.time()) / 86_400 < 31
    use = ("request", tenant, "orders.place", ORDER, "--creds", issued["file"])
    mesh.ok(*use)
    key = issued["credential"]["public_key"]
    mesh.ok("tenants", "credentials", "revoke", tenant, key)
    soon(lambda: "connection_failed" in mesh(*use).err)
    mesh.ok("request", tenant, "orders.place", ORDER)
    states = {
        each["public_key"]: each.get("revoked")
        for each in mesh.ok("tenants", "credentials", "list", tenant, "-o", "json").json
    }
    assert len(states) == 2
    assert states[key] is not None


def test_credentials_are_told_in_words(mesh: Cli, tenant: str) -> None:
    command = ("tenants", "credentials")
    said = mesh.ok(*command, "issue", tenant, "--name", "till", "--expires", "2099-12-31").out
    assert said.splitlines()[1:] == [
        f"credentials: {tenant}-till.creds",
        "expires: 2099-12-31T00:00:00Z",
    ]
    assert mesh.ok(*command, "revoke", tenant, "--all").out == (
        f"revoked all credentials of {tenant}\n"
    )
    rows = [row.split() for row in mesh.ok(*command, "list", tenant).out.splitlines()]
    assert rows[0] == ["KEY", "NAME", "STATE", "ISSUED", "EXPIRES"]
    assert [(row[1], row[2], row[4]) for row in rows[1:]] == [
        ("first", "revoked", "never"),
        ("till", "revoked", "2099-12-31T00:00:00Z"),
    ]


def test_a_key_that_is_none_is_a_usage_error(mesh: Cli) -> None:
    error = mesh.misused("tenants", "credentials", "revoke", "acme", "UABC")
    assert error.startswith("usage: 'UABC' is not the key of credentials")


def test_revoke_wants_one_or_all(mesh: Cli) -> None:
    assert "give one KEY, or --all" in mesh.misused("tenants", "credentials", "revoke", "acme")


def test_the_plans_are_listed(mesh: Cli) -> None:
    names = [row.split()[0] for row in mesh.ok("plans").out.splitlines()]
    assert names[0] == "PLAN"
    assert {"business", "premium", "standard"} <= set(names)


def test_without_a_mesh_it_is_told_how_to_start_one(alone: Cli) -> None:
    assert "start a mesh here with `tenantry up`" in alone.fails("tenants", "list")


def test_without_the_tenants_worker_it_is_told_to_ask_for_the_status(mesh: Cli) -> None:
    service = str(mesh.state / "operator" / "creds" / "router.creds")
    error = mesh.fails("tenants", "list", "--creds", service)
    assert error.startswith("not_allowed: ")
