"""Putting together what routers know of a tenant's rates."""

from __future__ import annotations

from tenantry.cli.levels import together
from tenantry.messages import RateLevel


def shared(left: float, scope: str = "") -> RateLevel:
    return RateLevel(scope=scope, left=left, shared=True)


def part(left: float, scope: str = "") -> RateLevel:
    return RateLevel(scope=scope, left=left)


def test_of_what_is_shared_who_sees_least_is_right() -> None:
    assert together([[shared(7.0)], [shared(5.0)]]) == {"": 5.0}


def test_own_parts_add_up() -> None:
    assert together([[part(2.0)], [part(3.0)]]) == {"": 5.0}


def test_while_some_are_without_redis_the_others_are_right() -> None:
    assert together([[part(2.0)], [shared(9.0)]]) == {"": 9.0}


def test_scopes_are_apart() -> None:
    told = [[shared(7.0), shared(1.0, "orders")], [shared(6.0), shared(4.0, "orders")]]
    assert together(told) == {"": 6.0, "orders": 1.0}


def test_without_routers_nothing_is_known() -> None:
    assert together([]) == {}
