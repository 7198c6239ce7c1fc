"""The circuit breaker as a state machine, on a virtual clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.fairness.breaker import Breakers, Verdict

FAILED, WORKED, NEITHER = Verdict.FAILED, Verdict.WORKED, Verdict.NEITHER


def broken(now: float = 0.0) -> Breakers:
    """Opened by the third failure of `bad`."""
    breakers = Breakers(failures=3, pause=1.0, longest=8.0)
    for _ in range(3):
        breakers.done("bad", FAILED, now)
    return breakers


def test_failures_in_a_row_open_it() -> None:
    assert broken().refused("bad", 0.0) == 1.0


def test_others_are_not_concerned() -> None:
    assert broken().refused("good", 0.0) == 0.0


@pytest.mark.parametrize("verdict", [WORKED, NEITHER])
def test_fewer_failures_do_not_open_it(verdict: Verdict) -> None:
    breakers = Breakers(failures=3)
    for each in (FAILED, FAILED, verdict):
        breakers.done("a", each, 0.0)
    assert breakers.refused("a", 0.0) == 0.0


def test_a_success_starts_the_count_anew() -> None:
    breakers = Breakers(failures=3)
    for each in (FAILED, FAILED, WORKED, FAILED, FAILED):
        breakers.done("a", each, 0.0)
    assert breakers.refused("a", 0.0) == 0.0


def test_what_is_the_askers_own_fault_is_no_success() -> None:
    breakers = Breakers(failures=3)
    for each in (FAILED, FAILED, NEITHER, FAILED):
        breakers.done("a", each, 0.0)
    assert breakers.refused("a", 0.0) > 0.0


def test_after_its_pause_one_probe_at_a_time_gets_through() -> None:
    breakers = broken()
    assert breakers.refused("bad", 1.0) == 0.0
    assert breakers.refused("bad", 1.0) > 0.0


def test_a_probe_that_works_closes_it() -> None:
    breakers = broken()
    breakers.refused("bad", 1.0)
    breakers.done("bad", WORKED, 1.1)
    assert [breakers.refused("bad", 1.1) for _ in range(3)] == [0.0] * 3


def test_a_probe_that_tells_nothing_is_followed_by_another() -> None:
    breakers = broken()
    breakers.refused("bad", 1.0)
    breakers.done("bad", NEITHER, 1.1)
    assert breakers.refused("bad", 1.1) == 0.0
    assert breakers.refused("bad", 1.1) > 0.0


def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    breakers, now, pauses = broken(), 0.0, []
    for _ in range(6):
        pause = breakers.refused("bad", now)
        pauses.append(pause)
        now += pause
        assert breakers.refused("bad", now) == 0.0
        breakers.done("bad", FAILED, now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_failures_of_what_began_before_it_opened_do_not_lengthen_it() -> None:
    breakers = broken()
    for _ in range(10):
        breakers.done("bad", FAILED, 0.5)
    assert breakers.refused("bad", 0.5) == 0.5


def test_who_has_no_failures_is_not_remembered() -> None:
    breakers = broken()
    for number in range(100):
        breakers.done(f"t{number}", WORKED, 0.0)
    assert len(breakers) == 1


def test_memory_is_bounded() -> None:
    breakers = Breakers()
    for number in range(20_000):
        breakers.done(f"t{number}", FAILED, 0.0)
    assert len(breakers) == 10_000


@given(st.lists(st.tuples(st.sampled_from([FAILED, WORKED, NEITHER]), st.floats(0, 5))))
def test_whatever_happens_a_call_gets_through_within_the_longest_pause(
    calls: list[tuple[Verdict, float]],
) -> None:
    breakers, now = Breakers(failures=3, pause=1.0, longest=8.0), 0.0
    for verdict, gap in calls:
        now += gap
        if not breakers.refused("a", now):
            breakers.done("a", verdict, now)
    assert breakers.refused("a", now + 8.0) == 0.0
