"""Putting together what instances tell."""

from __future__ import annotations

from tenantry.cli import standing
from tenantry.cli.consumption import Consumption
from tenantry.cli.standing import Slow, Standing, Standings
from tenantry.messages import Tallies, TenantTally
from tenantry.messages.tallies import LATENCIES


def tallies(service: str, *tenants: TenantTally) -> Tallies:
    return Tallies(service=service, instance="i", tenants=tenants)


def tally(tenant: str = "acme", **fields: object) -> TenantTally:
    return TenantTally(tenant=tenant, **fields)  # type: ignore[arg-type]


def slow_by(seconds: float, count: int = 1) -> tuple[int, ...]:
    """A histogram of one bucket."""
    buckets = [0] * (len(LATENCIES) + 1)
    buckets[next((i for i, b in enumerate(LATENCIES) if b >= seconds), len(LATENCIES))] = count
    return tuple(buckets)


def test_rates_of_routers_are_summed() -> None:
    told = [tallies("router", tally("a", rate=3), tally("b", rate=4))] * 2
    told.append(tallies("router", tally("c", rate=7)))
    assert standing._first(told, "rate", 3) == ["b", "c", "a"]


def test_a_service_s_own_rate_does_not_count() -> None:
    told = [tallies("router", tally("a", rate=1)), tallies("orders", tally("b", rate=9))]
    assert standing._first(told, "rate", 1) == ["a"]


def test_what_a_service_sends_counts() -> None:
    told = [tallies("router", tally("a", rate=1)), tallies("orders", tally("b", rate=9, sent=2))]
    assert standing._first(told, "rate", 1) == ["b"]
    assert standing._sum("b", [(False, tally(rate=9, sent=2)), (True, tally(rate=1))]).rate == 3


def test_errors_of_routers_and_services_count_together() -> None:
    told = [
        tallies("router", tally("a", errors=1), tally("b", errors=2)),
        tallies("orders", tally("a", errors=2)),
    ]
    assert standing._first(told, "errors", 1) == ["a"]


def test_the_slowest_by_any_service() -> None:
    told = [
        tallies("orders", tally("a", latency=slow_by(0.1)), tally("b", latency=slow_by(1.0))),
        tallies("ledger", tally("a", latency=slow_by(2.0))),
    ]
    assert standing._first(told, "latency", 2) == ["a", "b"]


def test_those_that_are_counted_together_are_not_shown() -> None:
    told = [tallies("router", tally("*", rate=9), tally("a", rate=1))]
    assert standing._first(told, "rate", 5) == ["a"]


def test_a_tenant_is_the_sum_of_its_parts() -> None:
    parts = [
        (True, tally(rate=2, limited=1, errors=1, refused={"rate_limited": 3})),
        (True, tally(rate=3, refused={"rate_limited": 1, "too_large": 1})),
        (False, tally(rate=4, errors=0.5, running=2, latency=slow_by(0.002, 99))),
        (False, tally(rate=1, running=1, latency=slow_by(0.6, 1))),
        (False, tally(rate=0)),
    ]
    assert standing._sum("acme", parts) == Standing(
        tenant="acme",
        rate=5,
        limited=1,
        errors=1.5,
        running=3,
        handled=5,
        p50_ms=2.0,
        p99_ms=2.0,
        refused={"rate_limited": 4, "too_large": 1},
    )


def test_what_nobody_knows_is_a_tenant_without_anything() -> None:
    assert standing._sum("acme", []) == Standing(tenant="acme")


def test_beyond_the_last_bound_a_latency_is_that_bound() -> None:
    found = standing._sum("acme", [(False, tally(latency=slow_by(1000.0)))])
    assert found.p99_ms == LATENCIES[-1] * 1000


def test_lag_and_quota_come_later() -> None:
    rows = (Standing(tenant="a"), Standing(tenant="b"))
    found = Standings(at=0, routers=1, instances=1, known=2, by="rate", tenants=rows)
    quota = Consumption(used={"per-day": 3}, percent=30.0, name="per-day")
    one, two = standing.with_slow(found, {"a": Slow(lag=7, quota=quota)}).tenants
    assert (one.lag, one.quota, one.quota_percent) == (7, {"per-day": 3}, 30.0)
    assert (two.lag, two.quota, two.quota_percent) == (None, None, None)


def test_what_comes_later_may_say_who_is_first() -> None:
    rows = (Standing(tenant="a"), Standing(tenant="b"))
    found = Standings(at=0, routers=1, instances=1, known=2, by="lag", tenants=rows)
    more = standing.with_slow(found, {"a": Slow(lag=7), "b": Slow(lag=8)})
    assert [each.tenant for each in more.tenants] == ["b", "a"]
