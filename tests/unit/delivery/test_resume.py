"""A new owner reads from the first unsettled message on, and runs nothing that is settled."""

from __future__ import annotations

import pytest

from tenantry.delivery import lane as lanes
from tenantry.delivery.lane import Lane
from tenantry.messages.checkpoints import Open
from tests.unit.delivery.hands import (
    LATER,
    bring,
    fail,
    failed,
    heir,
    new_lane,
    put,
    run,
    run_one,
    save,
)

SIDE = Open(next=3, why="backlog")


def test_a_lane_without_unsettled_messages_reads_on() -> None:
    lane = new_lane(read_to=9)
    assert (lane.read_to, lane.position, lane.floor) == (9, 9, 9)


def test_a_lane_reads_from_its_first_unsettled_message_on() -> None:
    lane = new_lane(read_to=9, a=5, b=3)
    assert (lane.read_to, lane.position, lane.floor) == (2, 9, 2)


def test_a_lane_need_not_read_again_for_a_sidelined_queue() -> None:
    lane = new_lane(read_to=9, a=SIDE)
    assert (lane.read_to, lane.position, lane.floor) == (9, 9, 2)


def test_what_is_read_again_and_was_settled_is_dropped() -> None:
    lane = new_lane(read_to=9, a=3, b=6)
    put(lane, "b", 4)
    put(lane, "c", 5)
    assert (run(lane), lane.held) == ({}, 0)


def test_what_is_read_again_and_was_not_settled_runs() -> None:
    lane = new_lane(read_to=9, a=3, b=6)
    put(lane, "a", 3)
    put(lane, "b", 6)
    put(lane, "a", 9)
    assert list(run(lane)) == [3, 6]
    assert lane.queues["a"].waiting[0][0] == 9


def test_what_comes_after_all_that_was_read_runs() -> None:
    lane = new_lane(read_to=9, a=3)
    put(lane, "c", 10)
    assert list(run(lane)) == [10]


def test_the_position_does_not_go_back_while_it_is_read_again() -> None:
    lane = new_lane(read_to=9, a=3)
    put(lane, "a", 3)
    assert save(lane).read_to == 9


# --- what the checkpoint says meanwhile --------------------------------------------------------


def test_a_queue_that_has_not_come_yet_is_unsettled_from_where_it_was() -> None:
    lane = new_lane(read_to=9, a=3, b=6)
    put(lane, "a", 3)
    assert save(lane).open["b"] == Open(next=6)


def test_a_queue_of_which_more_may_come_is_unsettled_from_there_on() -> None:
    lane = new_lane(read_to=9, a=3)
    put(lane, "a", 3)
    queue, _ = run_one(lane)
    lane.settle(queue, 3)
    assert save(lane).open == {"a": Open(next=4)}
    assert lane.floor == 3


def test_a_queue_that_waits_is_unsettled_from_its_first_message_on() -> None:
    lane = new_lane(read_to=9, a=3)
    put(lane, "a", 3, 5)
    assert save(lane).open == {"a": Open(next=3)}


def test_an_unordered_message_that_is_settled_is_not_unsettled_again() -> None:
    lane = new_lane(read_to=9, a=5, a_3=3)
    put(lane, "a#3", 3)
    queue, _ = run_one(lane)
    lane.settle(queue, 3)
    assert save(lane).open == {"a": Open(next=5)}


def test_an_unordered_message_that_has_not_come_yet_is_unsettled() -> None:
    lane = new_lane(read_to=9, a=3, a_5=5)
    put(lane, "a", 3)
    assert save(lane).open == {"a": Open(next=3), "a#5": Open(next=5)}


def test_of_a_shared_queue_more_may_come() -> None:
    lane = new_lane(read_to=9, a_=3)
    put(lane, "a#", 3)
    queue, _ = run_one(lane)
    lane.settle(queue, 3)
    assert save(lane).open == {"a#": Open(next=4)}


def test_when_all_is_read_again_nothing_is_left_of_it() -> None:
    lane = new_lane(read_to=9, a=3)
    put(lane, "", 9)
    assert (save(lane).open, lane.floor) == ({}, 9)


def test_the_next_heir_goes_on_where_this_one_stood() -> None:
    lane = new_lane(read_to=9, a=3, b=6)
    put(lane, "a", 3)
    queue, _ = run_one(lane)
    lane.settle(queue, 3)
    following = heir(save(lane))
    put(following, "a", 3, 4)
    put(following, "b", 5, 6)
    assert list(run(following)) == [4, 6]


def test_an_heir_keeps_what_the_checkpoint_says_of_a_sidelined_queue() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    following = heir(save(lane))
    assert following.sidelined["a"].side == queue.side
    assert following.queues["a"].side is not None
    assert following.queues["a"].side.retry_at == LATER


# --- sidelined meanwhile -----------------------------------------------------------------------


def test_what_is_read_again_of_a_sidelined_queue_is_dropped() -> None:
    lane = new_lane(read_to=9, a=SIDE, b=3)
    put(lane, "a", 4)
    assert list(lane.queues["a"].waiting) == []


def test_a_sidelined_queue_is_brought_what_is_read_again() -> None:
    lane = new_lane(read_to=9, a=SIDE, b=3)
    bring(lane, lane.queues["a"], 4, 9)
    assert list(run(lane)) == [4]


def _failed_while_read_again() -> Lane[int]:
    lane = new_lane(read_to=9, a=3)
    put(lane, "a", 3)
    queue, _ = run_one(lane)
    fail(lane, queue, 3)
    return lane


def test_a_queue_that_fails_while_it_is_read_again_loses_nothing() -> None:
    lane = _failed_while_read_again()
    put(lane, "a", 5, 9)
    assert save(lane).open["a"].next == 3
    bring(lane, lane.queues["a"], 3, 5, 9)
    assert [seq for seq, _ in lane.queues["a"].waiting] == [3, 5, 9]


def test_a_backlog_that_is_sidelined_while_it_is_read_again_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "BACKLOG", 1)
    lane = new_lane(read_to=9, a=3)
    put(lane, "a", 3, 5)
    assert lane.look_at_backlog(1.0) is lane.queues["a"]
    put(lane, "a", 7)
    bring(lane, lane.queues["a"], 3, 5, 7)
    assert [seq for seq, _ in lane.queues["a"].waiting] == [3, 5, 7]


def test_a_queue_that_is_back_while_it_is_read_again_runs_nothing_twice() -> None:
    lane = _failed_while_read_again()
    queue = lane.queues["a"]
    bring(lane, queue, 3)
    run(lane)
    save(lane)
    run(lane)
    lane.settle(queue, 3)
    assert lane.caught_up(queue, 9)
    put(lane, "a", 5, 9)
    assert (run(lane), save(lane).open) == ({}, {})
    put(lane, "a", 11)
    assert list(run(lane)) == [11]


def test_a_replay_sidelines_a_queue_that_has_not_come_yet_from_where_it_was() -> None:
    lane = new_lane(read_to=9, a=3, b=6)
    assert lane.sideline("b").side == Open(next=6, why="replay")


def test_a_replay_sidelines_a_queue_of_which_more_may_come_behind_what_is_settled() -> None:
    lane = new_lane(read_to=9, a=3)
    put(lane, "a", 3)
    queue, _ = run_one(lane)
    lane.settle(queue, 3)
    put(lane, "", 5)
    assert lane.sideline("a").side == Open(next=6, why="replay")


def test_a_replay_sidelines_a_queue_that_was_settled_from_what_comes_next_on() -> None:
    lane = new_lane(read_to=9, a=3)
    assert lane.sideline("c").side == Open(next=10, why="replay")


# --- the queues of unordered messages ----------------------------------------------------------


def test_unordered_messages_are_read_again_into_their_own_queues() -> None:
    lane = new_lane(read_to=9, a_3=3, a_7=7)
    names = [lane.unordered_name("a", seq) for seq in (3, 5, 7)]
    assert names == ["a#3", "a#5", "a#7"]


def test_an_unordered_message_keeps_its_queue_though_too_many_wait_for_a_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "SINGLES_MAX", 1)
    lane = new_lane(read_to=9, a_3=Open(next=3, why="failed", failed=1), a_5=5)
    assert lane.unordered_name("a", 5) == "a#5"
    assert lane.unordered_name("a", 10) == "a#"


@pytest.mark.parametrize("row", [6, Open(next=6, why="failed", failed=1)])
def test_an_unordered_message_keeps_its_queue_beside_a_shared_one(row: int | Open) -> None:
    lane = new_lane(read_to=9, a_=row, a_5=5)
    names = [lane.unordered_name("a", seq) for seq in (5, 6, 9)]
    assert names == ["a#5", "a#", "a#"]


def test_what_is_read_again_of_a_shared_queue_shares_it() -> None:
    lane = new_lane(read_to=9, a_=3)
    for seq in (3, 5):
        put(lane, lane.unordered_name("a", seq), seq)
    assert list(run(lane)) == [3]


def test_a_shared_queue_that_is_sidelined_while_it_is_read_again_loses_nothing() -> None:
    lane = new_lane(read_to=9, a_=3)
    put(lane, lane.unordered_name("a", 3), 3)
    queue, _ = run_one(lane)
    fail(lane, queue, 3)
    assert [lane.unordered_name("a", seq) for seq in (3, 5)] == ["a#", "a#"]


def test_after_all_is_read_again_a_message_has_a_queue_of_its_own() -> None:
    lane = new_lane(read_to=9, a_=3)
    put(lane, "", 9)
    assert lane.unordered_name("a", 11) == "a#11"
