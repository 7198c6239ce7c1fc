"""Each cell of the table of :mod:`tenantry.delivery.lane`, and how messages begin."""

from __future__ import annotations

import pytest

from tenantry.delivery import lane as lanes
from tests.unit.delivery.hands import (
    LATER,
    bring,
    fail,
    failed,
    go_on,
    new_lane,
    put,
    run,
    run_one,
    save,
    suspect,
)

# --- absent ------------------------------------------------------------------------------------


def test_a_message_of_an_absent_queue_waits() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    assert list(lane.queues["a"].waiting) == [(3, 3)]


def test_what_an_absent_queue_is_brought_is_dropped() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    queue, begun = run_one(lane)
    lane.settle(queue, begun.seq)
    assert lane.caught(queue, 3, 3)
    assert run(lane) == {}


def test_a_message_that_is_not_for_us_only_moves_the_position() -> None:
    lane = new_lane()
    put(lane, "", 3)
    assert (lane.position, lane.queues, lane.held, lane.dirty) == (3, {}, 0, False)


def test_a_message_that_is_for_us_changes_the_checkpoint() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    assert lane.dirty


@pytest.mark.parametrize("name", ["a", ""])
def test_what_comes_again_after_the_reader_was_made_anew_is_dropped(name: str) -> None:
    lane = new_lane()
    put(lane, "a", 3, 5)
    put(lane, name, 3, 5)
    assert len(lane.queues["a"].waiting) == lane.held == 2
    assert lane.position == 5


# --- waits -------------------------------------------------------------------------------------


def test_a_further_message_of_a_queue_is_appended() -> None:
    lane = new_lane()
    put(lane, "a", 3, 5)
    assert [seq for seq, _ in lane.queues["a"].waiting] == [3, 5]


def test_a_queue_that_waits_and_is_not_sidelined_is_brought_nothing() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    assert lane.caught(lane.queues["a"], 3, 3)
    assert len(lane.queues["a"].waiting) == 1


def test_queues_begin_in_the_order_in_which_they_came() -> None:
    lane = new_lane()
    put(lane, "b", 1)
    put(lane, "a", 2)
    assert list(run(lane)) == [1, 2]


def test_a_queue_is_served_once_at_a_time() -> None:
    lane = new_lane()
    put(lane, "a", 1, 2)
    assert lane.ready() is not None
    assert lane.ready() is None


def test_a_queue_that_has_come_twice_is_served_once() -> None:
    lane = new_lane()
    put(lane, "a", 1)
    queue = lane.sideline("a")
    bring(lane, queue, 1, 1)
    assert lane.ready() is queue
    assert lane.ready() is None


def test_a_queue_that_is_paused_may_be_served_again() -> None:
    lane = new_lane()
    put(lane, "a", 1)
    queue = lane.ready()
    assert queue is not None
    lane.pause(queue)
    assert lane.ready() is queue


def test_a_lane_that_is_left_begins_nothing() -> None:
    lane = new_lane()
    put(lane, "a", 1)
    lane.leaving = True
    assert lane.ready() is None


def test_a_queue_that_is_served_begins_nothing_once_its_lane_is_left() -> None:
    lane = new_lane()
    put(lane, "a", 1)
    queue = lane.ready()
    assert queue is not None
    lane.leaving = True
    assert lane.begin(queue) is None


# --- runs --------------------------------------------------------------------------------------


def test_the_first_message_begins() -> None:
    lane = new_lane()
    put(lane, "a", 3, 5)
    queue, begun = run_one(lane)
    assert (begun.seq, begun.message, queue.running, lane.running) == (3, 3, 3, 1)


def test_a_message_that_begins_for_the_first_time_has_neither_failed_nor_been_lost() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    _, begun = run_one(lane)
    assert (begun.failed, begun.lost) == (0, 0)


def test_while_one_message_of_a_queue_runs_no_other_begins() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    run_one(lane)
    put(lane, "a", 5)
    put(lane, "a", 7)
    assert run(lane) == {}


def test_messages_of_two_queues_run_side_by_side() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    put(lane, "b", 5)
    assert set(run(lane)) == {3, 5}


def test_after_one_is_settled_the_next_begins() -> None:
    lane = new_lane()
    put(lane, "a", 3, 5)
    queue, begun = run_one(lane)
    lane.settle(queue, begun.seq)
    assert go_on(lane, queue) == 5


def test_after_the_last_one_is_settled_the_queue_is_absent() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    queue, begun = run_one(lane)
    lane.settle(queue, begun.seq)
    assert lane.begin(queue) is None
    assert (lane.queues, lane.running, lane.held) == ({}, 0, 0)


def test_a_queue_that_was_absent_for_a_moment_is_served_again() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    queue, begun = run_one(lane)
    lane.settle(queue, begun.seq)
    put(lane, "a", 5)
    assert list(run(lane)) == [5]


def test_a_failure_sidelines_the_queue_at_its_message() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    assert queue.side is not None
    assert (queue.side.next, queue.side.why, queue.side.failed) == (3, "failed", 1)
    assert (queue.side.retry_at, queue.side.first_failed, queue.side.code) == (LATER, 1, "failed")


def test_a_failure_drops_what_waits_behind_it() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5, 7)
    assert (list(queue.waiting), lane.held, lane.running) == ([], 0, 0)
    assert run(lane) == {}


def test_a_message_that_is_postponed_has_not_failed() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    queue, _ = run_one(lane)
    lane.postpone(queue, 3, retry_at=LATER, code="unknown")
    assert queue.side is not None
    assert (queue.side.next, queue.side.failed, queue.side.retry_at) == (3, 0, LATER)


def test_a_message_that_is_postponed_keeps_its_failures() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    bring(lane, queue, 3)
    assert suspect(lane) == {3: queue}
    lane.postpone(queue, 3, retry_at=LATER, code="unknown")
    assert queue.side is not None
    assert (queue.side.failed, queue.side.first_failed, queue.side.code) == (1, 1, "unknown")


# --- sidelined ---------------------------------------------------------------------------------


def test_messages_of_a_sidelined_queue_are_passed_over() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    put(lane, "a", 5, 7)
    assert (queue.passed, list(queue.waiting), lane.held) == (7, [], 0)


def test_others_go_on_beside_a_sidelined_queue() -> None:
    lane = new_lane()
    failed(lane, "a", 3)
    put(lane, "b", 5)
    assert list(run(lane)) == [5]


def test_what_a_sidelined_queue_is_brought_runs_in_order() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    bring(lane, queue, 3, 5)
    assert list(suspect(lane)) == [3]
    lane.settle(queue, 3)
    assert go_on(lane, queue) == 5


def test_what_a_sidelined_queue_is_brought_takes_no_room_in_the_lane() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    bring(lane, queue, 3, 5)
    assert lane.held == 0
    suspect(lane)
    assert lane.held == 0


def test_what_a_sidelined_queue_is_brought_twice_runs_once() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    bring(lane, queue, 3, 5, 3, 5)
    assert [seq for seq, _ in queue.waiting] == [3, 5]


def test_what_runs_is_not_taken_again() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    bring(lane, queue, 3)
    suspect(lane)
    bring(lane, queue, 3, 5)
    assert [seq for seq, _ in queue.waiting] == [5]


def test_what_a_sidelined_queue_has_settled_is_not_taken_again() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    bring(lane, queue, 3)
    suspect(lane)
    lane.settle(queue, 3)
    bring(lane, queue, 3)
    assert list(queue.waiting) == []


def test_a_settled_message_moves_a_sidelined_queue_on() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    bring(lane, queue, 3)
    suspect(lane)
    lane.settle(queue, 3)
    assert queue.side is not None
    assert (queue.side.next, queue.side.why, queue.side.failed) == (4, "backlog", 0)


def test_a_reader_that_is_further_than_the_lane_is_refused() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    lane.retry(queue)
    assert not lane.caught(queue, 5, 5)
    put(lane, "", 5)
    assert lane.caught(queue, 5, 5)


def test_failures_of_a_message_add_up() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    bring(lane, queue, 3)
    suspect(lane)
    fail(lane, queue, 3, now=5.0)
    assert queue.side is not None
    assert (queue.side.failed, queue.side.first_failed) == (2, 1.0)


def test_a_message_that_begins_again_tells_how_often_it_has_failed() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    bring(lane, queue, 3)
    save(lane)
    assert run(lane) == {}
    save(lane)
    _, begun = run_one(lane)
    assert (begun.failed, begun.lost) == (1, 0)


def test_the_failures_of_a_message_are_not_those_of_the_next() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    bring(lane, queue, 3, 5)
    suspect(lane)
    lane.settle(queue, 3)
    begun = lane.begin(queue)
    assert begun is not None
    assert (begun.seq, begun.failed) == (5, 0)
    fail(lane, queue, 5, now=7.0)
    assert queue.side is not None
    assert (queue.side.next, queue.side.failed, queue.side.first_failed) == (5, 1, 7.0)


def test_a_message_fails_for_itself_though_the_one_before_was_erased() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    bring(lane, queue, 5)
    _, begun = run_one(lane)
    assert (begun.seq, begun.failed) == (5, 0)


# --- pauses ------------------------------------------------------------------------------------


def test_a_queue_that_pauses_refuses_what_it_is_brought() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    assert not lane.caught(queue, 5, 5)
    assert list(queue.waiting) == []


def test_a_queue_whose_pause_is_over_takes_what_it_is_brought() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3, 5)
    lane.retry(queue)
    assert queue.side is not None
    assert (queue.side.retry_at, queue.side.why, queue.side.failed) == (0, "failed", 1)
    assert lane.caught(queue, 3, 3)


def test_messages_of_a_queue_that_pauses_are_passed_over() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    put(lane, "a", 5)
    assert queue.passed == 5


# --- room --------------------------------------------------------------------------------------


def test_there_is_room_for_as_many_as_a_lane_holds() -> None:
    lane = new_lane()
    assert lane.room() == lanes.LANE_MAX
    put(lane, "a", 1, 2)
    assert lane.room() == lanes.LANE_MAX - 2


def test_a_message_that_begins_gives_its_room_back() -> None:
    lane = new_lane()
    put(lane, "a", 1, 2)
    run_one(lane)
    assert lane.held == 1


def test_a_failure_gives_the_room_of_what_waits_back_once() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 1, 2, 3)
    bring(lane, queue, 1, 2)
    suspect(lane)
    fail(lane, queue, 1)
    assert lane.held == 0
