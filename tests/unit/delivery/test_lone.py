"""A suspect that was lost twice runs with no other one beside it, in the whole process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tenantry.delivery.lane import Lane
from tenantry.delivery.suspects import Suspects
from tests.unit.delivery.hands import after_crash, bring, fail, put, run, save, suspect


def _sidelined(lane: Lane[int]) -> None:
    lane.sideline("t3")


def _left(lane: Lane[int]) -> None:
    lane.leaving = True


# --- alone -------------------------------------------------------------------------------------


def test_suspects_that_were_lost_once_run_side_by_side() -> None:
    lane = after_crash(3, 5, t3=1, t5=1)
    assert set(suspect(lane)) == {3, 5}


def test_no_suspect_begins_beside_a_lone_one() -> None:
    lane = after_crash(3, 5, t3=2)
    assert list(suspect(lane)) == [3]
    assert suspect(lane) == {}


def test_others_begin_beside_a_lone_suspect() -> None:
    lane = after_crash(3, t3=2)
    suspect(lane)
    put(lane, "b", 100)
    assert list(run(lane)) == [100]


def test_a_lone_suspect_waits_for_those_that_run() -> None:
    lane = after_crash(5)
    queue = suspect(lane)[5]
    lane._beginnings.counts[7] = 2
    put(lane, "t7", 7)
    assert suspect(lane) == {}
    lane.settle(queue, 5)
    save(lane)
    assert list(suspect(lane)) == [7]


def test_no_suspect_begins_before_a_lone_one_that_waits() -> None:
    lane = after_crash(5, t7=2)
    queue = suspect(lane)[5]
    put(lane, "t7", 7)
    put(lane, "t9", 9)
    assert suspect(lane) == {}
    lane.settle(queue, 5)
    save(lane)
    assert list(suspect(lane)) == [7]


def test_the_end_of_a_lone_suspect_is_durable_before_another_begins() -> None:
    lane = after_crash(3, 5, t3=2)
    queue = suspect(lane)[3]
    lane.settle(queue, 3)
    lane.unblock()
    assert run(lane) == {}
    assert lane.urgent
    assert save(lane).begun == {}
    assert list(suspect(lane)) == [5]


def test_an_end_that_the_snapshot_has_not_is_not_durable_with_it() -> None:
    lane = after_crash(3, 5, t3=2)
    queue = suspect(lane)[3]
    lane.snapshot("me", 0.0)
    lane.settle(queue, 3)
    lane.saved()
    assert suspect(lane) == {}  # this one writes the end
    assert list(suspect(lane)) == [5]


def test_a_suspect_that_is_tried_again_at_once_does_not_leave_with_its_last_end() -> None:
    suspects = Suspects()
    lane = after_crash(3, suspects=suspects)
    queue = suspect(lane)[3]
    fail(lane, queue, 3)
    lane.snapshot("me", 0.0)
    bring(lane, queue, 3)
    run(lane)
    lane.saved()
    save(lane)
    assert list(run(lane)) == [3]
    assert not suspects.enter("other", 1, lone=True)


def test_a_suspect_that_leaves_the_memory_makes_room_once_that_is_durable() -> None:
    lane = after_crash(3, 5, t3=2)
    run(lane)
    save(lane)
    lane.sideline("t3")
    assert run(lane) == {}
    save(lane)
    assert list(suspect(lane)) == [5]


@pytest.mark.parametrize("drop", [_sidelined, _left])
def test_a_lone_suspect_that_waits_no_more_holds_nobody_up(
    drop: Callable[[Lane[int]], None],
) -> None:
    suspects = Suspects()
    other = after_crash(4, suspects=suspects)
    queue = suspect(other)[4]
    lane = after_crash(3, t3=2, suspects=suspects)
    run(lane)
    drop(lane)
    if lane.leaving:
        suspects.leave(lane)
    other.settle(queue, 4)
    save(other)
    put(other, "t6", 6)
    assert list(suspect(other)) == [6]


# --- over all lanes of a process ---------------------------------------------------------------


def test_a_lone_suspect_is_alone_in_the_process() -> None:
    suspects = Suspects()
    lane, other = after_crash(3, t3=2, suspects=suspects), after_crash(4, suspects=suspects)
    assert list(suspect(lane)) == [3]
    assert suspect(other) == {}


def test_another_lane_is_called_when_a_lone_suspect_has_left() -> None:
    suspects, calls = Suspects(), list[int]()
    lane, other = after_crash(3, t3=2, suspects=suspects), after_crash(4, suspects=suspects)
    queue = suspect(lane)[3]
    run(other)
    other._changed = lambda: calls.append(1)
    lane.settle(queue, 3)
    assert calls == []
    save(lane)
    assert calls == [1]
    assert list(suspect(other)) == [4]


def test_suspects_of_a_lane_that_is_left_make_room() -> None:
    suspects = Suspects()
    lane, other = after_crash(3, t3=2, suspects=suspects), after_crash(4, suspects=suspects)
    suspect(lane)
    run(other)
    suspects.leave(lane)
    assert list(suspect(other)) == [4]


def test_a_lane_that_is_left_is_not_called_any_more() -> None:
    suspects, calls = Suspects(), list[int]()
    lane, other = after_crash(3, t3=2, suspects=suspects), after_crash(4, suspects=suspects)
    queue = suspect(lane)[3]
    run(other)
    other._changed = lambda: calls.append(1)
    suspects.leave(other)
    lane.settle(queue, 3)
    save(lane)
    assert calls == []


def test_of_two_lone_suspects_one_runs_after_the_other() -> None:
    lane = after_crash(3, 5, t3=2, t5=2)
    queue = suspect(lane)[3]
    assert suspect(lane) == {}
    lane.settle(queue, 3)
    save(lane)
    assert list(suspect(lane)) == [5]


def test_a_suspect_enters_once() -> None:
    suspects = Suspects()
    assert suspects.enter("lane", 3, lone=True)
    assert suspects.enter("lane", 3, lone=True)
    suspects.leave("lane", 3)
    assert suspects.enter("lane", 5, lone=True)
