"""What the checkpoint says, and how far a lane may go beyond the last one that is durable."""

from __future__ import annotations

import pytest

from tenantry.delivery import lane as lanes
from tenantry.delivery.lane import Lane
from tenantry.delivery.suspects import Suspects
from tenantry.messages.checkpoints import Checkpoint, Open
from tests.unit.delivery.hands import fail, failed, go_on, new_lane, put, run, run_one, save

# --- what it says ------------------------------------------------------------------------------


def test_it_says_how_far_the_partition_was_read() -> None:
    lane = new_lane()
    put(lane, "", 3)
    assert save(lane).read_to == 3


def test_it_has_what_waits() -> None:
    lane = new_lane()
    put(lane, "a", 3, 5)
    assert save(lane).open == {"a": Open(next=3)}


def test_it_has_what_runs() -> None:
    lane = new_lane()
    put(lane, "a", 3, 5)
    run(lane)
    assert save(lane).open == {"a": Open(next=3)}


def test_it_has_the_next_one_after_one_is_settled() -> None:
    lane = new_lane()
    put(lane, "a", 3, 5)
    queue, _ = run_one(lane)
    lane.settle(queue, 3)
    assert save(lane).open == {"a": Open(next=5)}


def test_it_has_nothing_of_what_is_settled() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    queue, _ = run_one(lane)
    lane.settle(queue, 3)
    record = save(lane)
    assert (record.open, record.read_to) == ({}, 3)


def test_it_has_all_of_a_sidelined_queue() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    assert save(lane).open == {"a": queue.side}


def test_it_has_each_unordered_message() -> None:
    lane = new_lane()
    put(lane, "a#3", 3)
    put(lane, "a#5", 5)
    run(lane)
    assert save(lane).open == {"a#3": Open(next=3), "a#5": Open(next=5)}


def test_it_keeps_what_a_lane_knows_nothing_of() -> None:
    found = Checkpoint(epoch=7, owner="me", version="1.2.3", names=("s.a",), unordered={"b": 1})
    lane = Lane[int](found, suspects=Suspects())
    record = lane.snapshot("me", 1.23456)
    assert (record.epoch, record.version, record.names) == (7, "1.2.3", ("s.a",))
    assert (record.unordered, record.age) == ({"b": 1}, 1.235)


@pytest.mark.parametrize("owner", ["me", ""])
def test_it_has_its_owner_or_none_with_a_release(owner: str) -> None:
    assert new_lane().snapshot(owner, 0.0).owner == owner


def test_the_floor_is_below_the_first_unsettled_message() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    put(lane, "b", 5)
    assert lane.floor == 2
    queues = run(lane)
    lane.settle(queues[3], 3)
    assert lane.floor == 4
    lane.settle(queues[5], 5)
    assert lane.floor == 5


def test_after_a_snapshot_there_is_nothing_new_to_say() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    save(lane)
    assert not lane.dirty


@pytest.mark.parametrize("change", ["settle", "fail", "sideline", "retry", "caught_up"])
def test_each_change_is_something_new_to_say(change: str) -> None:
    lane = new_lane()
    side = failed(lane, "a", 1)
    put(lane, "b", 3)
    queue, _ = run_one(lane)
    if change == "caught_up":
        lane.retry(side)
    save(lane)
    if change == "settle":
        lane.settle(queue, 3)
    elif change == "fail":
        fail(lane, queue, 3)
    elif change == "sideline":
        lane.sideline("c")
    elif change == "retry":
        lane.retry(side)
    else:
        lane.caught_up(side, 3)
    assert lane.dirty


# --- how far it may go -------------------------------------------------------------------------


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Lane[int]:
    """A lane that may begin two beyond its last checkpoint, with four that wait."""
    monkeypatch.setattr(lanes, "UNSAVED_MAX", 2)
    lane = new_lane()
    for seq in range(1, 5):
        put(lane, f"t{seq}", seq)
    return lane


def test_so_many_begin_beyond_the_last_checkpoint(limited: Lane[int]) -> None:
    assert list(run(limited)) == [1, 2]


def test_who_has_to_wait_for_a_checkpoint_asks_for_one(limited: Lane[int]) -> None:
    run(limited)
    assert limited.urgent
    assert limited.dirty


def test_after_a_checkpoint_others_begin(limited: Lane[int]) -> None:
    run(limited)
    save(limited)
    assert list(run(limited)) == [3, 4]


def test_a_snapshot_that_is_not_durable_lets_nothing_begin(limited: Lane[int]) -> None:
    run(limited)
    limited.snapshot("me", 0.0)
    limited.unblock()
    assert run(limited) == {}


def test_what_began_after_the_snapshot_counts_beyond_it(limited: Lane[int]) -> None:
    queue = limited.ready()
    assert queue is not None
    limited.begin(queue)
    limited.snapshot("me", 0.0)
    assert list(run(limited)) == [2]
    limited.saved()
    assert limited.unsaved == 1
    assert list(run(limited)) == [3]


def test_one_queue_alone_may_not_go_further_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "UNSAVED_MAX", 1)
    lane = new_lane()
    put(lane, "a", 3, 5)
    queue, _ = run_one(lane)
    lane.settle(queue, 3)
    assert go_on(lane, queue) == 0
    save(lane)
    assert list(run(lane)) == [5]


def test_suspects_may_not_go_further_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "UNSAVED_MAX", 1)
    lane = new_lane(unclean_to=9)
    put(lane, "a", 3)
    put(lane, "b", 5)
    run(lane)
    save(lane)
    assert len(run(lane)) == 1
    save(lane)
    assert len(run(lane)) == 1


def test_a_queue_that_was_blocked_and_sidelined_is_served_once(limited: Lane[int]) -> None:
    run(limited)
    queue = limited.sideline("t3")
    limited.retry(queue)
    assert limited.caught(queue, 3, 3)
    run(limited)
    save(limited)
    assert set(run(limited)) == {3, 4}
    assert not limited._ready


def test_what_was_unclean_stays_so_over_a_release() -> None:
    lane = new_lane(unclean_to=9)
    lane.leaving = True
    assert lane.snapshot("", 0.0).unclean_to == 9


def test_nothing_is_unclean_once_all_of_it_is_settled() -> None:
    lane = new_lane(unclean_to=2)
    lane.arrived("", 2, 2)
    assert lane.snapshot("me", 0.0).unclean_to == 0
