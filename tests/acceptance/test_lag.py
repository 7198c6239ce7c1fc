"""`tenantry services --lag` and the lag in `tenantry tenants show`."""

from __future__ import annotations

from tests.acceptance.cli import Cli, soon

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
        soon(lambda: "sleeper" in mesh.ok("services", "--lag").out)  # it has claimed a partition
    mesh.ok("publish", "acme", "sleeper.wake")


def test_lag_by_service_and_by_tenant(mesh: Cli) -> None:
    slept(mesh)
    (lag,) = mesh.ok("services", "sleeper", "--lag", "-o", "json").json
    assert (lag["service"], lag["in_hand"], lag["sidelined"], lag["dead"]) == ("sleeper", 0, 0, 0)
    assert lag["instances"] == 0
    assert "partitions" not in lag
    assert lag["waiting"] >= 1
    assert lag["oldest"] >= 0
    head, *rows = mesh.ok("services", "--lag").out.splitlines()
    assert head.split()[:3] == ["SERVICE", "INSTANCES", "WAITING"]
    assert {"ledger", "orders", "sleeper"} <= {row.split()[0] for row in rows}
    shown = mesh.ok("tenants", "show", "acme", "-o", "json").json
    assert shown["id"] == "acme"
    waiting = {each["service"]: each["waiting"] for each in shown["lag"]}
    assert waiting["sleeper"] == lag["waiting"]
    assert f"sleeper: {lag['waiting']} waiting" in mesh.ok("tenants", "show", "acme").out


def test_lag_by_partition(mesh: Cli) -> None:
    slept(mesh)
    (lag,) = mesh.ok("services", "sleeper", "--lag", "--partitions", "-o", "json").json
    parts = lag["partitions"]
    assert [each["partition"] for each in parts] == [*range(16)]
    assert {each["owner"] for each in parts} == {""}
    assert sum(each["waiting"] for each in parts) == lag["waiting"]
    head, *rows = mesh.ok("services", "orders", "--lag", "--partitions").out.splitlines()
    assert head.split()[:3] == ["SERVICE", "PARTITION", "OWNER"]
    assert len(rows) == 16
    assert "none" not in {row.split()[2] for row in rows}


def test_partitions_need_lag(alone: Cli) -> None:
    assert "--lag" in alone.misused("services", "--partitions")


def test_a_service_that_reads_no_journal(mesh: Cli) -> None:
    assert "no service tenants reads" in mesh.fails("services", "tenants", "--lag")
