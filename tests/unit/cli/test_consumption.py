"""What is used of a plan's quotas."""

from __future__ import annotations

import datetime as dt
from typing import Any

from tenantry.cli.consumption import Consumption, consumption
from tenantry.messages import Count, Plan, Quota, Usage

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC).timestamp()


def plan(**months: Any) -> Plan:
    """With a quota of 100 a day, and one a month."""
    quotas = (Quota(period="day", amount=100), Quota(period="month", amount=1000, **months))
    return Plan(name="p", quotas=quotas)


def usage(day: int, month: int, window: str = "2026-11-21") -> Usage:
    return Usage(
        counts={
            "per-day": Count(window=window, leased=day, used=day),
            "per-month": Count(window="2026-11", leased=month, used=month),
        }
    )


def test_the_quota_most_of_which_is_used_is_told() -> None:
    assert consumption(plan(), usage(50, 300), NOON) == Consumption(
        used={"per-day": 50, "per-month": 300}, percent=50.0, name="per-day"
    )
    assert consumption(plan(), usage(20, 300), NOON).name == "per-month"


def test_what_was_used_yesterday_does_not_count() -> None:
    found = consumption(plan(), usage(50, 300, "2026-11-20"), NOON)
    assert (found.used["per-day"], found.name) == (0, "per-month")


def test_overage_is_more_than_all() -> None:
    assert consumption(plan(hard=2000), usage(0, 1500), NOON).percent == 150.0


def test_a_quota_in_shadow_is_counted_and_not_told() -> None:
    found = consumption(plan(shadow=True), usage(20, 900), NOON)
    assert (found.used["per-month"], found.name) == (900, "per-day")


def test_nothing_used_is_nothing_of_it() -> None:
    assert consumption(plan(), None, NOON).percent == 0.0


def test_without_quotas_there_is_nothing_to_tell() -> None:
    assert consumption(Plan(name="p"), usage(1, 1), NOON) == Consumption(used={})
