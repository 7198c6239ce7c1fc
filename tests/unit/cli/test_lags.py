from __future__ import annotations

import pytest

from tenantry.cli import lags
from tenantry.cli.lags import lines
from tenantry.lag import PartitionLag, ServiceLag, TenantLag

IDLE = TenantLag(service="idle", waiting=0, dead=0)


def test_a_tenant_that_is_nowhere_behind() -> None:
    assert lines([IDLE]) == ["lag          none"]


def test_only_services_where_something_is_left_are_told() -> None:
    found = [
        TenantLag(service="ledger", waiting=3, dead=1),
        IDLE,
        TenantLag(service="orders", waiting=0, dead=2, sidelined="backlog"),
    ]
    assert lines(found) == [
        "lag          ledger: 3 waiting, 1 dead letter",
        "             orders: catching up with its backlog, 2 dead letters",
    ]


def test_a_retry_says_since_when_why_and_when_again() -> None:
    retried = TenantLag(
        service="ledger",
        waiting=1,
        dead=0,
        sidelined="failed",
        failed=4,
        code="handler_failed",
        since=1_700_000_000.0,
        retry_at=1_700_000_030.0,
    )
    (line,) = lines([retried])
    assert line.startswith("lag          ledger: 1 waiting, retrying since 2023-11-14T22:13:20Z (")
    assert line.endswith("(handler_failed, try 5 at 2023-11-14T22:13:50Z)")


def test_a_retry_without_a_pause_is_tried_at_once() -> None:
    retried = TenantLag(
        service="ledger", waiting=1, dead=0, sidelined="failed", failed=1, code="x", since=0.0
    )
    assert lines([retried])[0].endswith("(x, try 2 at once)")


def test_what_an_instance_has_in_hand_is_told() -> None:
    busy = TenantLag(service="ledger", waiting=0, in_hand=2, dead=0)
    assert lines([busy]) == ["lag          ledger: 2 in hand"]


def part(owner: str = "", renewed: float | None = None) -> PartitionLag:
    return PartitionLag(
        partition=3,
        owner=owner,
        renewed=renewed,
        read_to=1_234,
        floor=1_200,
        waiting=5,
        in_hand=2,
        sidelined=1,
        oldest=61.0,
    )


def test_a_partition_tells_its_owner_and_its_progress() -> None:
    assert lags._partition("ledger", part("one-abc", 0.5)) == (
        *("ledger", 3, "one-abc", "0s"),
        *(1_234, 1_200, 5, 2, 1, "1m 1s"),
    )


@pytest.mark.parametrize(
    ("owner", "told"), [("", ("none", None)), ("one-abc", ("one-abc", "gone"))]
)
def test_a_partition_that_nobody_reads(owner: str, told: tuple[object, ...]) -> None:
    assert lags._partition("ledger", part(owner))[2:4] == told


def test_a_service_that_does_not_run_has_no_instances() -> None:
    found = ServiceLag(
        service="ledger", instances=0, waiting=5, in_hand=2, sidelined=1, oldest=61.0, dead=0
    )
    assert lags._row(found) == ("ledger", "none", 5, 2, 1, "1m 1s", 0)
