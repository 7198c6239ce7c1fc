"""Who is sidelined for a backlog or a replay, and who comes back."""

from __future__ import annotations

import pytest

from tenantry.delivery import lane as lanes
from tenantry.delivery.lane import Lane, Queue
from tenantry.messages.checkpoints import Open
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

SLOW = 1000.0
"""Seconds between two looks, in which next to nothing was settled."""


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Lane[int]:
    """A lane in which `a` has more waiting than it should."""
    monkeypatch.setattr(lanes, "BACKLOG", 2)
    lane = new_lane()
    put(lane, "b", 1)
    put(lane, "a", 2, 3, 4, 5)
    return lane


# --- a backlog ---------------------------------------------------------------------------------


def test_the_longest_queue_is_sidelined_from_its_first_message_on(full: Lane[int]) -> None:
    queue = full.look_at_backlog(SLOW)
    assert queue is full.queues["a"]
    assert queue.side == Open(next=2, why="backlog")


def test_a_backlog_that_is_sidelined_gives_its_room_back(full: Lane[int]) -> None:
    full.look_at_backlog(SLOW)
    assert full.held == 1


def test_a_sidelined_backlog_is_read_up_to_its_last_message(full: Lane[int]) -> None:
    queue = full.look_at_backlog(SLOW)
    assert queue is not None
    assert queue.passed == 5
    assert not full.caught_up(queue, 4)
    assert full.caught_up(queue, 5)


def test_a_short_queue_is_not_sidelined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "BACKLOG", 2)
    lane = new_lane()
    put(lane, "a", 1, 2)
    assert lane.look_at_backlog(SLOW) is None


def test_an_empty_lane_sidelines_nobody() -> None:
    assert new_lane().look_at_backlog(SLOW) is None


def test_a_queue_that_is_settled_within_a_second_is_not_sidelined(full: Lane[int]) -> None:
    full.queues["a"].settled = 1
    assert full.look_at_backlog(0.25) is None
    assert full.look_at_backlog(0.25) is full.queues["a"]


def test_what_was_settled_before_the_last_look_counts_for_no_queue(full: Lane[int]) -> None:
    full.queues["b"].settled = 1000
    put(full, "a", 6)
    full.queues["a"].settled = 1000
    assert full.look_at_backlog(1.0) is None
    put(full, "b", *range(7, 17))
    assert full.look_at_backlog(1.0) is full.queues["b"]


def test_settled_messages_are_counted(full: Lane[int]) -> None:
    queue = run(full)[2]
    full.settle(queue, 2)
    assert queue.settled == 1


def test_a_sidelined_queue_is_not_sidelined_again(full: Lane[int]) -> None:
    queue = full.look_at_backlog(SLOW)
    assert queue is not None
    bring(full, queue, 2, 3, 4, 5)
    assert full.look_at_backlog(SLOW) is None


def test_what_runs_goes_on_while_its_queue_is_sidelined(full: Lane[int]) -> None:
    queue = run(full)[2]
    assert full.look_at_backlog(SLOW) is queue
    assert queue.running == 2
    assert queue.side == Open(next=3, why="backlog")
    assert save(full).open["a"] == Open(next=2, why="backlog")


def test_the_end_of_what_ran_does_not_move_a_sidelined_queue(full: Lane[int]) -> None:
    queue = run(full)[2]
    full.look_at_backlog(SLOW)
    full.settle(queue, 2)
    assert queue.side == Open(next=3, why="backlog")
    assert go_on(full, queue) == 0
    bring(full, queue, 3)
    assert list(run(full)) == [3]


def test_what_ran_while_its_queue_was_sidelined_may_fail(full: Lane[int]) -> None:
    queue = run(full)[2]
    full.look_at_backlog(SLOW)
    bring(full, queue, 3)
    fail(full, queue, 2)
    assert queue.side is not None
    assert (queue.side.next, queue.side.failed, list(queue.waiting)) == (2, 1, [])


# --- back with the lane ------------------------------------------------------------------------


@pytest.fixture
def behind() -> tuple[Lane[int], Queue[int]]:
    """A queue whose first message has failed, and was settled at the second try."""
    lane = new_lane()
    queue = failed(lane, "a", 3)
    bring(lane, queue, 3)
    suspect(lane)
    lane.settle(queue, 3)
    assert go_on(lane, queue) == 0
    save(lane)
    return lane, queue


Behind = tuple[Lane[int], Queue[int]]


def test_a_queue_of_which_nothing_is_left_is_back(behind: Behind) -> None:
    lane, queue = behind
    assert lane.caught_up(queue, lane.position)
    assert (lane.queues, lane.sidelined, queue.side) == ({}, {}, None)


def test_a_queue_that_is_back_goes_with_its_lane_again(behind: Behind) -> None:
    lane, queue = behind
    lane.caught_up(queue, lane.position)
    put(lane, "a", 5)
    assert list(run(lane)) == [5]


def test_a_lone_message_that_failed_keeps_nobody_sidelined_while_others_go_on(
    behind: Behind,
) -> None:
    lane, queue = behind
    upto = lane.position
    put(lane, "b", 5)
    assert lane.caught_up(queue, upto)


def test_a_queue_is_not_back_if_messages_were_passed_over_since(behind: Behind) -> None:
    lane, queue = behind
    upto = lane.position
    put(lane, "a", 5)
    assert not lane.caught_up(queue, upto)
    assert lane.caught_up(queue, lane.position)


def test_a_queue_is_not_back_while_one_runs(behind: Behind) -> None:
    lane, queue = behind
    put(lane, "a", 5)
    bring(lane, queue, 5)
    assert list(run(lane)) == [5]
    assert not lane.caught_up(queue, 5)
    lane.settle(queue, 5)
    assert lane.caught_up(queue, 5)


def test_a_queue_is_not_back_while_one_waits(behind: Behind) -> None:
    lane, queue = behind
    put(lane, "a", 5)
    bring(lane, queue, 5)
    assert not lane.caught_up(queue, 5)


def test_a_queue_is_not_back_while_it_pauses() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    assert not lane.caught_up(queue, 3)
    lane.retry(queue)
    assert lane.caught_up(queue, 3)


def test_a_queue_that_is_back_already_is_not_back_again(behind: Behind) -> None:
    lane, queue = behind
    assert lane.caught_up(queue, 3)
    assert not lane.caught_up(queue, 3)


# --- a replay ----------------------------------------------------------------------------------


def test_a_replay_sidelines_an_absent_queue_from_what_comes_next_on() -> None:
    lane = new_lane(read_to=7)
    assert lane.sideline("a").side == Open(next=8, why="replay")


def test_a_replay_sidelines_a_queue_from_what_waits_on() -> None:
    lane = new_lane()
    put(lane, "a", 3, 5)
    queue = lane.sideline("a")
    assert (queue.side, queue.passed) == (Open(next=3, why="replay"), 5)
    assert (lane.held, run(lane)) == (0, {})


def test_what_runs_goes_on_beside_a_replay_that_begins() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    queue, _ = run_one(lane)
    lane.sideline("a")
    assert save(lane).open["a"] == Open(next=3, why="replay")
    lane.settle(queue, 3)
    assert save(lane).open["a"] == Open(next=4, why="replay")


def test_what_settles_beside_a_replay_does_not_end_it() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    bring(lane, queue, 3)
    suspect(lane)
    lane.sideline("a")
    lane.settle(queue, 3)
    assert queue.side == Open(next=4, why="replay")


def test_what_fails_beside_a_replay_is_tried_again_after_it() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    queue, _ = run_one(lane)
    lane.sideline("a")
    fail(lane, queue, 3)
    assert queue.side is not None
    assert queue.side.why == "replay"
    lane.retry(queue)
    assert (queue.side.why, queue.side.next, queue.side.failed) == ("failed", 3, 1)
    assert queue.side.retry_at == 0


def test_a_queue_takes_nothing_while_a_replay_is_at_work() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    queue = lane.sideline("a")
    assert not lane.caught(queue, 3, 3)
    bring(lane, queue, 3)
    assert list(run(lane)) == [3]


def test_a_queue_is_not_back_while_a_replay_is_at_work() -> None:
    lane = new_lane(read_to=7)
    queue = lane.sideline("a")
    assert not lane.caught_up(queue, 7)
    lane.retry(queue)
    assert queue.side == Open(next=8, why="backlog")
    assert lane.caught_up(queue, 7)


def test_a_replay_keeps_what_a_sidelined_queue_has_of_its_first_message() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    assert lane.sideline("a") is queue
    assert queue.side is not None
    assert (queue.side.why, queue.side.failed, queue.side.retry_at) == ("replay", 1, 0)


# --- erased ------------------------------------------------------------------------------------


def test_an_erased_queue_waits_for_no_retry() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    lane.erased("a")
    assert not queue.pauses
    assert lane.caught_up(queue, lane.position)


def test_what_came_after_a_queue_was_erased_is_served() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    put(lane, "a", 5)
    lane.erased("a")
    assert not lane.caught_up(queue, 3)
    bring(lane, queue, 5)
    assert list(run(lane)) == [5]


def test_what_was_read_before_the_owner_heard_of_the_erasure_is_served() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    lane.retry(queue)
    put(lane, "a", 5)
    bring(lane, queue, 5)
    lane.erased("a")
    assert list(run(lane)) == [5]


def test_a_queue_that_was_erased_beside_a_replay_waits_for_its_end() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    lane.sideline("a")
    lane.erased("a")
    assert queue.pauses


def test_what_was_erased_and_waits_in_memory_is_not_begun() -> None:
    lane = new_lane()
    for seq in (1, 2, 3):
        put(lane, "a", seq)
    lane.drop("a", 2)
    assert lane.held == 1
    assert list(run(lane)) == [3]


def test_what_was_erased_of_a_sidelined_queue_is_not_begun() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    lane.retry(queue)
    bring(lane, queue, 3)
    lane.drop("a", 3)
    assert list(run(lane)) == []
    assert lane.held == 0


def test_what_others_have_in_memory_stays_when_a_tenant_is_erased() -> None:
    lane = new_lane()
    put(lane, "a", 1)
    put(lane, "ab", 2)
    lane.drop("a", 2)
    assert list(run(lane)) == [2]


def test_nothing_happens_to_others_when_a_queue_was_erased() -> None:
    lane = new_lane()
    failed(lane, "a", 3)
    put(lane, "b", 5)
    lane.erased("a")
    lane.erased("nobody")
    assert list(run(lane)) == [5]


def test_an_erased_queue_that_would_be_read_again_is_not_in_the_checkpoint() -> None:
    lane = new_lane(read_to=9, a=3, b=4)
    lane.erased("a")
    assert set(save(lane).open) == {"b"}


# --- unordered ---------------------------------------------------------------------------------


def test_an_unordered_message_has_a_queue_of_its_own() -> None:
    lane = new_lane()
    for seq in (3, 5):
        put(lane, lane.unordered_name("a", seq), seq)
    assert set(run(lane)) == {3, 5}


def test_a_queue_tells_whose_it_is() -> None:
    lane = new_lane()
    for name in ("a", "a#7", "a#"):
        lane.sideline(name)
    found = {name: (queue.tenant, queue.single) for name, queue in lane.queues.items()}
    assert found == {"a": ("a", 0), "a#7": ("a", 7), "a#": ("a", 0)}


def test_an_unordered_message_is_absent_as_soon_as_its_retry_is_settled() -> None:
    lane = new_lane()
    queue = failed(lane, "a#3", 3)
    bring(lane, queue, 3)
    suspect(lane)
    lane.settle(queue, 3)
    assert (lane.queues, lane.sidelined) == ({}, {})


def test_where_too_many_wait_for_a_retry_those_of_a_tenant_share_a_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "SINGLES_MAX", 1)
    lane = new_lane()
    assert lane.unordered_name("a", 3) == "a#3"
    failed(lane, "a#3", 3)
    assert lane.unordered_name("a", 5) == "a#"


def test_where_one_fewer_waits_for_a_retry_each_has_its_own_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "SINGLES_MAX", 1)
    lane = new_lane()
    queue = failed(lane, "a#3", 3)
    bring(lane, queue, 3)
    suspect(lane)
    lane.settle(queue, 3)
    assert lane.unordered_name("a", 5) == "a#5"


def test_as_long_as_the_shared_queue_is_there_all_that_follow_go_there() -> None:
    lane = new_lane()
    put(lane, "a#", 3)
    assert lane.unordered_name("a", 5) == "a#"
    assert lane.unordered_name("b", 5) == "b#5"
    queue, _ = run_one(lane)
    lane.settle(queue, 3)
    assert lane.unordered_name("a", 5) == "a#5"


def test_a_failed_unordered_message_waits_alone() -> None:
    lane = new_lane()
    queue = failed(lane, "a#3", 3)
    put(lane, lane.unordered_name("a", 5), 5)
    assert list(run(lane)) == [5]
    assert queue.side is not None
    assert queue.side.retry_at == LATER
