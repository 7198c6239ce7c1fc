"""Who may have ended its worker begins with care: durable first, and alone where it must."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tenantry.delivery import suspects as careful
from tenantry.delivery.lane import Lane
from tests.unit.delivery.hands import (
    LATER,
    after_crash,
    bring,
    fail,
    failed,
    go_on,
    heir,
    new_lane,
    put,
    run,
    run_one,
    save,
    suspect,
)

# --- who is a suspect --------------------------------------------------------------------------


def test_after_a_clean_release_nobody_is_a_suspect() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    assert list(run(lane)) == [3]


def test_what_the_former_owner_may_have_begun_is_a_suspect() -> None:
    lane = new_lane(unclean_to=3)
    put(lane, "a", 3)
    assert run(lane) == {}
    save(lane)
    assert list(run(lane)) == [3]


def test_what_came_after_the_former_owner_is_none() -> None:
    lane = new_lane(unclean_to=3)
    put(lane, "a", 4)
    assert list(run(lane)) == [4]


def test_what_was_lost_is_a_suspect_after_a_clean_release_too() -> None:
    lane = new_lane(begun={3: 1})
    put(lane, "a", 3)
    assert run(lane) == {}
    save(lane)
    _, begun = run_one(lane)
    assert begun.lost == 1


def test_what_has_failed_is_a_suspect() -> None:
    lane = new_lane()
    queue = failed(lane, "a", 3)
    save(lane)
    bring(lane, queue, 3)
    assert run(lane) == {}
    assert save(lane).begun == {3: 1}
    assert list(run(lane)) == [3]


def test_what_was_only_postponed_is_none() -> None:
    lane = new_lane()
    put(lane, "a", 3)
    queue, _ = run_one(lane)
    lane.postpone(queue, 3, retry_at=LATER, code="unknown")
    assert lane.begin(queue) is None
    bring(lane, queue, 3)
    assert list(run(lane)) == [3]


# --- durable before it begins ------------------------------------------------------------------


def test_a_suspect_asks_for_a_checkpoint() -> None:
    calls = list[int]()
    lane = after_crash(3)
    lane._changed = lambda: calls.append(1)
    save(lane)
    run(lane)
    assert (calls, lane.dirty, lane.urgent) == ([1], True, True)


def test_a_suspect_is_counted_before_it_begins() -> None:
    lane = after_crash(3)
    run(lane)
    assert lane.snapshot("me", 0.0).begun == {3: 1}
    lane.unblock()
    assert run(lane) == {}


def test_each_beginning_is_counted() -> None:
    lane = after_crash(3, t3=1)
    run(lane)
    assert save(lane).begun == {3: 2}


def test_a_suspect_tells_how_often_it_was_lost_before() -> None:
    lane = after_crash(3, t3=1)
    run(lane)
    save(lane)
    _, begun = run_one(lane)
    assert begun.lost == 1


def test_a_suspect_is_counted_once_however_often_it_is_looked_at() -> None:
    lane = after_crash(3)
    run(lane)
    lane.unblock()
    run(lane)
    assert save(lane).begun == {3: 1}


def test_what_is_proposed_after_a_snapshot_is_not_allowed_with_it() -> None:
    lane = after_crash(3)
    run(lane)
    lane.snapshot("me", 0.0)
    put(lane, "t5", 5)
    run(lane)
    lane.saved()
    assert list(run(lane)) == [3]
    save(lane)
    assert list(run(lane)) == [5]


def test_a_second_snapshot_after_a_first_that_was_not_written_allows_all_it_has() -> None:
    lane = after_crash(3)
    run(lane)
    lane.snapshot("me", 0.0)
    put(lane, "t5", 5)
    run(lane)
    assert save(lane).begun == {3: 1, 5: 1}
    assert set(run(lane)) == {3, 5}


def test_one_checkpoint_writes_down_so_many_beginnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(careful, "CAREFUL", 2)
    lane = after_crash(1, 2, 3)
    run(lane)
    assert len(save(lane).begun) == 2
    assert len(suspect(lane)) == 3


def test_a_suspect_that_is_settled_is_none_any_more() -> None:
    lane = after_crash(3, t3=1)
    queue = suspect(lane)[3]
    lane.settle(queue, 3)
    assert save(lane).begun == {}


def test_a_suspect_that_fails_was_not_lost() -> None:
    lane = after_crash(3, t3=1)
    queue = suspect(lane)[3]
    fail(lane, queue, 3)
    assert save(lane).begun == {}
    bring(lane, queue, 3)
    run(lane)
    save(lane)
    _, begun = run_one(lane)
    assert (begun.failed, begun.lost) == (1, 0)


def test_a_suspect_that_is_postponed_stays_as_often_lost_as_before() -> None:
    lane = after_crash(3, t3=2)
    queue = suspect(lane)[3]
    lane.postpone(queue, 3, retry_at=LATER, code="")
    assert lane.begin(queue) is None
    assert save(lane).begun == {3: 2}
    bring(lane, queue, 3)
    run(lane)
    save(lane)
    _, begun = run_one(lane)
    assert begun.lost == 2


def test_the_next_of_a_queue_is_looked_at_for_itself() -> None:
    lane = new_lane(unclean_to=3)
    put(lane, "a", 3, 5)
    queue = suspect(lane)[3]
    lane.settle(queue, 3)
    assert go_on(lane, queue) == 5


def test_a_count_of_what_is_settled_or_erased_is_dropped() -> None:
    lane = new_lane(read_to=9, begun={3: 1, 7: 1}, a=6)
    assert save(lane).begun == {7: 1}


# --- what does not begin after all -------------------------------------------------------------


def _sidelined(lane: Lane[int]) -> None:
    lane.sideline("t3")


def _erased(lane: Lane[int]) -> None:
    queue = failed(lane, "x", 200)
    lane.erased(queue.name)
    lane.sideline("t3")
    lane.erased("t3")


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("drop", [_sidelined, _erased])
def test_a_suspect_that_leaves_the_memory_was_not_begun(
    durable: bool, drop: Callable[[Lane[int]], None]
) -> None:
    lane = after_crash(3, 4, t3=1)
    run(lane)
    if durable:
        save(lane)
    drop(lane)
    assert save(lane).begun.get(3, 0) <= 1


@pytest.mark.parametrize("durable", [False, True])
def test_a_suspect_that_comes_again_is_counted_again(durable: bool) -> None:
    lane = after_crash(3, t3=1)
    run(lane)
    if durable:
        save(lane)
    queue = lane.sideline("t3")
    assert save(lane).begun == {3: 1}
    put(lane, "", 9)
    bring(lane, queue, 3)
    run(lane)
    assert save(lane).begun == {3: 2}
    assert list(run(lane)) == [3]


def test_a_release_takes_back_what_did_not_begin() -> None:
    lane = after_crash(3, 4, t3=1)
    run(lane)
    save(lane)
    put(lane, "t5", 5)
    lane.leaving = True
    assert lane.snapshot("", 0.0).begun == {3: 1}


def test_a_release_that_cuts_something_off_keeps_its_count() -> None:
    lane = after_crash(3)
    assert list(suspect(lane)) == [3]
    lane.leaving = True
    assert lane.snapshot("me", 0.0).begun == {3: 1}


def test_an_heir_counts_on() -> None:
    lane = after_crash(3)
    run(lane)
    following = heir(save(lane), unclean_to=99)
    put(following, "t3", 3)
    run(following)
    assert save(following).begun == {3: 2}


def test_a_suspect_taken_back_while_a_snapshot_is_written_is_not_allowed_with_it() -> None:
    lane = after_crash(3)
    run(lane)
    lane.snapshot("me", 0.0)
    queue = lane.sideline("t3")
    lane.saved()
    put(lane, "", 9)
    bring(lane, queue, 3)
    assert run(lane) == {}
    assert save(lane).begun == {3: 1}
    assert list(run(lane)) == [3]
