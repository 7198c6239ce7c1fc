from __future__ import annotations

from tenantry.cli.lags import lines
from tenantry.lag import TenantLag

IDLE = TenantLag(service="idle", waiting=0, dead=0)


def test_a_tenant_that_is_nowhere_behind() -> None:
    assert lines([IDLE]) == ["lag          none"]


def test_only_services_where_something_is_left_are_told() -> None:
    found = [
        TenantLag(service="ledger", waiting=3, dead=1),
        IDLE,
        TenantLag(service="orders", waiting=0, dead=2, behind=True),
    ]
    assert lines(found) == [
        "lag          ledger: 3 waiting, 1 dead letter",
        "             orders: read apart, 2 dead letters",
    ]


def test_a_retry_says_since_when_why_and_when_again() -> None:
    retried = TenantLag(
        service="ledger",
        waiting=1,
        dead=0,
        behind=True,
        failed=4,
        code="handler_failed",
        since=1_700_000_000.0,
        retry_at=1_700_000_030.0,
    )
    (line,) = lines([retried])
    assert line.startswith("lag          ledger: 1 waiting, retrying since 2023-11-14T22:13:20Z (")
    assert line.endswith("(handler_failed, try 5 at 2023-11-14T22:13:50Z)")
