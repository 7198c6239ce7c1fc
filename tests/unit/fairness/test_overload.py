"""When a queue stands, as CoDel says it, on a virtual clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tenantry.fairness.overload import Overload

QUICK = 0.001


def overload(*waits: tuple[float, float]) -> bool:
    """Whether it sheds after these `(now, waited)`."""
    overload = Overload(target=0.1, interval=1.0)
    return [overload.waited(waited, now, QUICK) for now, waited in waits][-1]


def test_long_waits_for_an_interval_shed() -> None:
    assert overload((0.0, 0.2), (0.5, 0.2), (1.0, 0.2))


def test_a_burst_does_not() -> None:
    assert not overload((0.0, 0.2), (0.5, 0.9), (0.9, 0.9))


def test_short_waits_do_not() -> None:
    assert not overload((0.0, 0.1), (1.0, 0.1), (9.0, 0.1))


def test_one_short_wait_ends_it() -> None:
    assert not overload((0.0, 0.2), (1.0, 0.2), (1.1, 0.05))


def test_after_that_it_takes_an_interval_again() -> None:
    assert not overload((0.0, 0.2), (1.0, 0.2), (1.1, 0.05), (1.2, 0.2), (2.1, 0.2))
    assert overload((0.0, 0.2), (1.0, 0.2), (1.1, 0.05), (1.2, 0.2), (2.2, 0.2))


def test_where_requests_take_long_a_wait_as_long_is_no_overload() -> None:
    slow = Overload(target=0.1, interval=1.0)
    assert not any(slow.waited(4.0, now, 5.0) for now in range(100))


def test_where_nobody_waits_for_another_it_is_calm() -> None:
    calm = Overload(target=0.1, interval=1.0)
    calm.waited(0.2, 0.0, QUICK)
    assert calm.waited(0.2, 1.0, QUICK)
    calm.calm()
    assert not calm.waited(0.2, 1.1, QUICK)


@given(st.lists(st.tuples(st.floats(0, 0.9), st.floats(0, 10)), max_size=50))
def test_without_an_interval_of_long_waits_nothing_is_shed(
    steps: list[tuple[float, float]],
) -> None:
    each, now = Overload(target=0.1, interval=1.0), 0.0
    for gap, waited in steps:
        now += gap
        assert not each.waited(waited, now, QUICK)
        each.waited(0.0, now, QUICK)
