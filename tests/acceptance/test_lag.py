"""`tenantry services --lag` and the lag in `tenantry tenants show`."""

from __future__ import annotations

from tests.acceptance.cli import Cli

SLEEPER = """
from tenantry import Context, Service

service = Service("sleeper", version="1.0.0")

@service.command("wake", public=True)
async def wake(ctx: Context) -> None:
    pass
"""


def slept(mesh: Cli) -> None:
    """A service that has run, and for which something waits."""
    mesh.write("sleeper.py", SLEEPER)
    with mesh.foreground("run", "sleeper:service") as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
    mesh.ok("publish", "acme", "sleeper.wake")


def test_lag_by_service_and_by_tenant(mesh: Cli) -> None:
    slept(mesh)
    (lag,) = mesh.ok("services", "sleeper", "--lag", "-o", "json").json
    assert (lag["service"], lag["in_hand"], lag["behind"], lag["dead"]) == ("sleeper", 0, 0, 0)
    assert lag["waiting"] >= 1
    assert lag["oldest"] >= 0
    head, *rows = mesh.ok("services", "--lag").out.splitlines()
    assert head.split()[:2] == ["SERVICE", "WAITING"]
    assert {"ledger", "orders", "sleeper"} <= {row.split()[0] for row in rows}
    shown = mesh.ok("tenants", "show", "acme", "-o", "json").json
    assert shown["id"] == "acme"
    waiting = {each["service"]: each["waiting"] for each in shown["lag"]}
    assert waiting["sleeper"] == lag["waiting"]
    assert f"sleeper: {lag['waiting']} waiting" in mesh.ok("tenants", "show", "acme").out


def test_a_service_that_reads_no_journal(mesh: Cli) -> None:
    assert "no service tenants reads" in mesh.fails("services", "tenants", "--lag")
