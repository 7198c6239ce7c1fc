from __future__ import annotations

import time

from tenantry.runtime.stats import Stats


def test_an_action_begins_at_zero() -> None:
    counts = Stats().of("orders.place")
    assert (counts.requests, counts.errors, counts.last_error, counts.processing) == (0, 0, "", 0)


def test_what_is_done_is_counted_with_its_time() -> None:
    counts = Stats().of("orders.place")
    counts.done(5)
    counts.done(7)
    assert (counts.requests, counts.errors, counts.processing) == (2, 0, 12)


def test_an_error_is_counted_and_the_last_one_kept() -> None:
    counts = Stats().of("orders.place")
    counts.done(1, "conflict")
    counts.done(1, "not_found")
    counts.done(1)
    assert (counts.requests, counts.errors, counts.last_error) == (3, 2, "not_found")


def test_actions_are_counted_apart() -> None:
    stats = Stats()
    stats.of("orders.place").done(1)
    assert stats.of("orders.cancel").requests == 0
    assert stats.of("orders.place").requests == 1


def test_the_start_is_now() -> None:
    assert abs(Stats().started - time.time()) < 5
