"""What a router lets into the journal, between two counts of it."""

from __future__ import annotations

from typing import Any

import pytest

from tenantry.bus import Bus
from tenantry.errors import QuotaExceeded
from tenantry.messages import Plan, Volume, VolumeProgress
from tenantry.volumes import PROGRESS
from tenantry_workers.router.volumes import Volumes

PLAN = Plan(name="tight", journal_bytes=100, max_body=50, retention=3_600)


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def volumes(clock: Clock) -> Volumes:
    return Volumes(Bus(["nats://127.0.0.1:1"]), clock=clock)


def fits(volumes: Volumes, size: int) -> bool:
    try:
        volumes.take("acme", PLAN, size)
    except QuotaExceeded:
        return False
    return True


def count(volumes: Volumes, clock: Clock, ever: int, **fields: Any) -> None:
    """What the tenants worker tells."""
    parts = {int(clock.now) + 60: ever}
    volumes.rows.rows["acme"] = Volume(**{"seq": 1, "parts": parts, "ever": ever} | fields)


def test_what_was_let_in_counts_at_once(volumes: Volumes) -> None:
    assert [fits(volumes, 40) for _ in range(3)] == [True, True, False]
    assert fits(volumes, 20)


def test_it_does_not_count_twice_when_it_is_counted(volumes: Volumes, clock: Clock) -> None:
    assert fits(volumes, 40)
    count(volumes, clock, 40)
    assert [fits(volumes, 60), fits(volumes, 1)] == [True, False]


def test_what_is_not_counted_yet_goes_on_counting(volumes: Volumes, clock: Clock) -> None:
    assert fits(volumes, 40)
    assert fits(volumes, 40)
    count(volumes, clock, 40)
    assert [fits(volumes, 21), fits(volumes, 20)] == [False, True]


def test_what_others_have_stored_counts(volumes: Volumes, clock: Clock) -> None:
    count(volumes, clock, 90)
    assert [fits(volumes, 11), fits(volumes, 10)] == [False, True]


def test_what_is_gone_makes_room_without_being_told(volumes: Volumes, clock: Clock) -> None:
    count(volumes, clock, 90)
    assert not fits(volumes, 40)
    clock.now += 61
    assert fits(volumes, 40)


def test_what_never_came_to_be_stored_is_forgotten_when_all_is_counted(
    volumes: Volumes, clock: Clock
) -> None:
    assert fits(volumes, 90)
    clock.now += 1
    assert not fits(volumes, 40)
    volumes.progress.rows[PROGRESS] = VolumeProgress(seq=1, at=clock.now)
    assert fits(volumes, 40)


def test_while_nobody_counts_no_more_than_what_was_left_goes_in(
    volumes: Volumes, clock: Clock
) -> None:
    count(volumes, clock, 50)
    admitted = 0
    for _ in range(1_000):
        clock.now += 0.05
        admitted += 7 * fits(volumes, 7)
    assert 43 < admitted <= 50


def test_the_refusal_tells_when_there_is_room(volumes: Volumes, clock: Clock) -> None:
    parts = {int(clock.now) + 10: 30, int(clock.now) + 20: 60}
    count(volumes, clock, 90, parts=parts)
    waits = []
    for size in (30, 50):
        with pytest.raises(QuotaExceeded) as caught:
            volumes.take("acme", PLAN, size)
        waits.append(caught.value.retry_after)
    assert waits == [10.0, 20.0]


def test_another_tenant_has_its_own(volumes: Volumes) -> None:
    assert fits(volumes, 100)
    volumes.take("globex", PLAN, 100)
    assert not fits(volumes, 1)
