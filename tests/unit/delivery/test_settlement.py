"""What becomes of a message that was tried, as a table."""

from __future__ import annotations

import pytest

from tenantry.delivery import settlement, timing
from tenantry.delivery.settlement import (
    LOST_MORE,
    DeadLetter,
    Outcome,
    Release,
    Result,
    RetryAfter,
    Settle,
)
from tenantry.errors import HandlerFailed, Unavailable
from tenantry.service.retry import Retry

WHY = HandlerFailed("it failed")
RETRY = Retry(tries=3, first=2.0, most=60.0, jitter=0.0)


@pytest.mark.parametrize(
    ("result", "failed", "newer", "decision"),
    [
        (Result(Outcome.DONE), 0, False, Settle()),
        (Result(Outcome.DONE), 2, False, Settle()),
        (Result(Outcome.LATE, WHY), 0, False, Settle()),
        (Result(Outcome.FAILED, WHY), 0, False, RetryAfter(2.0, WHY)),
        (Result(Outcome.FAILED, WHY), 1, False, RetryAfter(4.0, WHY)),
        (Result(Outcome.FAILED, WHY), 2, False, DeadLetter(WHY)),
        (Result(Outcome.HOPELESS, WHY), 0, False, DeadLetter(WHY)),
        (Result(Outcome.LOST), 0, False, Release()),
        (Result(Outcome.LOST, WHY), 0, False, Release()),
        (Result(Outcome.UNKNOWN, WHY), 0, False, DeadLetter(WHY)),
        (Result(Outcome.UNKNOWN, WHY), 0, True, RetryAfter(timing.UNKNOWN_RETRY, WHY)),
        (Result(Outcome.UNKNOWN, WHY), timing.UNKNOWN_TRIES, True, DeadLetter(WHY)),
        (
            Result(Outcome.UNKNOWN, WHY),
            timing.UNKNOWN_TRIES - 1,
            True,
            RetryAfter(timing.UNKNOWN_RETRY, WHY),
        ),
    ],
)
def test_decision(result: Result, failed: int, newer: bool, decision: settlement.Decision) -> None:
    assert settlement.decide(result, RETRY, failed, newer=newer) == decision


def test_a_message_with_one_try_is_not_tried_again() -> None:
    result = Result(Outcome.FAILED, WHY)
    assert settlement.decide(result, Retry(tries=1), 0) == DeadLetter(WHY)


def test_a_dead_letter_that_could_not_be_written_is_none_of_the_tries() -> None:
    assert settlement.unwritten(DeadLetter(WHY)) == RetryAfter(timing.LETTER_RETRY, WHY, False)


@pytest.mark.parametrize("tries", [1, 3, 15])
def test_a_message_begins_a_stated_number_of_times_beyond_its_tries(tries: int) -> None:
    retry = Retry(tries=tries)
    most = tries + LOST_MORE - 1  # the first beginning is counted nowhere
    assert settlement.given_up(retry, 0, most - 1) is None
    assert settlement.given_up(retry, 0, most) is not None


def test_failures_and_lost_beginnings_add_up() -> None:
    assert settlement.given_up(RETRY, 2, 2) is None
    assert settlement.given_up(RETRY, 2, 3) is not None


def test_a_message_that_was_never_lost_is_never_given_up() -> None:
    assert settlement.given_up(RETRY, 100, 0) is None


def test_a_message_that_is_given_up_is_not_tried_again() -> None:
    why = settlement.given_up(RETRY, 0, 100)
    assert why is not None
    assert not why.retry


def test_a_message_that_could_not_begin_keeps_its_tries() -> None:
    away = Unavailable("no router")
    decision = settlement.decide(Result(Outcome.NOT_BEGUN, away), Retry(tries=1), failed=0)
    assert isinstance(decision, RetryAfter)
    assert (decision.why, decision.counts) == (away, False)
