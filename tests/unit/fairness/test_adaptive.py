"""How many may run, by how long they take: on a virtual clock."""

from __future__ import annotations

import random

import pytest

from tenantry.fairness.adaptive import Adaptive


def feed(limiter: Adaptive, seconds: float, *, start: float = 0.0, full: bool = True) -> float:
    """Twenty seconds of messages that take so long; returns when they ended."""
    now = start
    for _ in range(2000):
        now += 0.01
        limiter.done("a", seconds, now, full=full)
    return now


def test_at_first_all_may_run() -> None:
    assert Adaptive(64).limit == 64


def test_as_long_as_messages_take_what_they_usually_do_all_may_run() -> None:
    limiter = Adaptive(64)
    feed(limiter, 0.05)
    assert limiter.limit == 64


def test_where_they_take_much_longer_fewer_may_run() -> None:
    limiter = Adaptive(64)
    now = feed(limiter, 0.05)
    feed(limiter, 0.5, start=now)
    assert limiter.limit < 16


@pytest.mark.parametrize("most", [1, 2, 9, 64, 500])
def test_there_is_always_room_for_a_tenth_and_for_one(most: int) -> None:
    limiter = Adaptive(most)
    now = feed(limiter, 0.001)
    feed(limiter, 60.0, start=now)
    assert limiter.limit == max(1, most // 10)


def test_once_they_are_quick_again_all_may_run_again() -> None:
    limiter = Adaptive(64)
    now = feed(limiter, 0.05)
    now = feed(limiter, 0.5, start=now)
    feed(limiter, 0.05, start=now)
    assert limiter.limit == 64


def test_it_does_not_grow_where_slots_are_free() -> None:
    limiter = Adaptive(64)
    now = feed(limiter, 0.05)
    now = feed(limiter, 0.5, start=now)
    now = feed(limiter, 0.05, start=now, full=False)
    low = limiter.limit
    feed(limiter, 0.05, start=now, full=False)
    assert limiter.limit == low


def test_a_mix_of_quick_and_slow_actions_is_no_slowness() -> None:
    limiter, now, source = Adaptive(64), 0.0, random.Random(1)
    for number in range(5000):
        now += 0.01
        slow = source.random() < (0.1 if number < 2500 else 0.9)
        limiter.done("slow" if slow else "quick", 1.0 if slow else 0.01, now, full=True)
    assert limiter.limit == 64
