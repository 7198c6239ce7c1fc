"""`tenantry journal erase`."""

from __future__ import annotations

import pytest

from tests.acceptance.cli import Cli, soon


@pytest.fixture
def tenant(mesh: Cli, tenant: str) -> str:
    """A tenant of this test alone, with something in its journal."""
    mesh.ok("publish", tenant, "orders.import", '{"orders": [{"sku": "B-2"}]}')
    soon(lambda: "orders.placed" in mesh.ok("journal", tenant).out)
    return tenant


def test_a_tenant_that_leaves_is_erased(mesh: Cli, tenant: str) -> None:
    mesh.ok("tenants", "delete", tenant, "--yes")
    soon(lambda: "tenant_deleted" in mesh.ok("journal", tenant).out)
    lines = mesh.ok("journal", "erase", tenant, "--yes").out.splitlines()
    assert lines[0].split() == ["WHAT", "STREAM", "ERASED"]
    assert ["commands", "and", "events", "JOURNAL", "4"] in [line.split() for line in lines]
    assert "Nothing of it is left there. Not reached:" in lines
    assert mesh.ok("journal", tenant, "-o", "json").out == ""


def test_what_was_erased_is_told_as_json(mesh: Cli, tenant: str) -> None:
    mesh.ok("tenants", "suspend", tenant)
    said = mesh.ok("journal", "erase", tenant, "--yes", "-o", "json").json
    assert "JOURNAL" in {each["stream"] for each in said["erased"]}
    assert sum(each["count"] for each in said["erased"]) >= 3
    assert "backups and exports" in said["not_reached"]


def test_an_active_tenant_is_refused(mesh: Cli, tenant: str) -> None:
    error = mesh.fails("journal", "erase", tenant, "--yes")
    assert error.startswith(f"conflict: tenant {tenant} is active (suspend or delete it first")
    assert "orders.placed" in mesh.ok("journal", tenant).out


def test_without_a_terminal_it_wants_a_yes(mesh: Cli, tenant: str) -> None:
    mesh.ok("tenants", "suspend", tenant)
    assert mesh.misused("journal", "erase", tenant) == (
        f"usage: erasing {tenant} has to be confirmed (give --yes, or use a terminal)"
    )
    assert "orders.placed" in mesh.ok("journal", tenant).out


def test_an_exported_tenant_can_be_brought_back(mesh: Cli, tenant: str) -> None:
    mesh.ok("journal", "export", tenant, "back.jsonl.gz")
    mesh.ok("tenants", "suspend", tenant)
    mesh.ok("journal", "erase", tenant, "--yes")
    mesh.ok("journal", "import", "back.jsonl.gz")
    assert "orders.placed" in mesh.ok("journal", tenant).out
