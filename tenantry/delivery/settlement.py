"""Decides what becomes of a stored message that was tried, live or in a replay."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

from tenantry.delivery import timing
from tenantry.errors import HandlerFailed, Rejection, TenantSuspended, UnknownAction
from tenantry.service.handler import Handler
from tenantry.service.retry import Retry

LOST_MORE = 3
"""Beginnings that a message may have beyond its tries, as it takes its process with it.

The first one is counted nowhere, the next two may be the fault of a message that ran beside it.
"""


class Outcome(enum.Enum):
    """How a try ended."""

    DONE = "done"
    FAILED = "failed"
    HOPELESS = "hopeless"
    """It failed, and no other try can help."""
    LATE = "late"
    """It, or a later message of its tenant, was settled before."""
    UNKNOWN = "unknown"
    """This version has no handler for it, but another one has."""
    NOT_BEGUN = "not_begun"
    """The mesh could not do what comes before the handler: that is none of its tries."""
    LOST = "lost"
    """This replica lost the partition meanwhile: another one decides."""


class Result(NamedTuple):
    """How a try ended, and why where it failed."""

    outcome: Outcome
    why: Rejection | None = None


class Settle(NamedTuple):
    """It is done with."""


class RetryAfter(NamedTuple):
    """It is tried again after so many seconds; until then its tenant is sidelined."""

    pause: float
    why: Rejection
    counts: bool = True
    """True if this was one of its tries."""


class DeadLetter(NamedTuple):
    """It becomes a dead letter; when that is written it is done with."""

    why: Rejection


class Release(NamedTuple):
    """Nothing is decided here any more."""


SETTLE = Settle()

SUSPENDED = RetryAfter(
    timing.NOT_BEGUN_RETRY, TenantSuspended("its messages wait until it is resumed"), counts=False
)
"""The decision on a message of a suspended tenant: its queue waits until it is resumed."""

Decision = Settle | RetryAfter | DeadLetter | Release


def decide(result: Result, retry: Retry, failed: int, *, newer: bool = False) -> Decision:
    """Decide what becomes of a message that had failed `failed` times before this try.

    `newer` says that a newer version of the service has been here, which may know the message.
    """
    outcome, why = result
    if outcome in (Outcome.DONE, Outcome.LATE):
        return SETTLE
    if outcome is Outcome.LOST or why is None:
        return Release()
    if outcome is Outcome.NOT_BEGUN:
        return RetryAfter(timing.NOT_BEGUN_RETRY, why, counts=False)
    if outcome is Outcome.UNKNOWN and newer and failed < timing.UNKNOWN_TRIES:
        return RetryAfter(timing.UNKNOWN_RETRY, why)
    if outcome is Outcome.FAILED and failed + 1 < retry.tries:
        return RetryAfter(retry.pause(failed + 1), why)
    return DeadLetter(why)


def longest_pause(handlers: Iterable[Handler], code: str) -> float:
    """The longest pause, seconds, that can have been decided for a message that failed with `code`.

    `handlers` are all of its service: a message that waits is not read yet.
    """
    unknown = timing.UNKNOWN_RETRY if code == UnknownAction.code else timing.LETTER_RETRY
    return max([unknown, *(each.retry.most * (1 + each.retry.jitter) for each in handlers)])


def given_up(retry: Retry, failed: int, lost: int) -> HandlerFailed | None:
    """Why a message is not begun once more: it took its process with it too often. Else None."""
    if not lost or 1 + failed + lost < retry.tries + LOST_MORE:
        return None
    why = HandlerFailed(f"lost {lost} times: its worker ended or hung each time that it ran")
    why.retry = False
    return why


def unwritten(letter: DeadLetter) -> RetryAfter:
    """The decision when a dead letter can't be written now."""
    return RetryAfter(timing.LETTER_RETRY, letter.why, counts=False)
