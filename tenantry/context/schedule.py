"""When a command is sent later: the time that a handler asks for, and what tells nats-server."""

from __future__ import annotations

import datetime as dt
import math

from tenantry.wire import headers

MAX_AHEAD = 366 * 86_400.0
"""How far ahead a command may be scheduled, seconds."""

Moment = float | dt.datetime
"""Seconds since the epoch, or a datetime with a time zone."""


def due_time(after: float | None, at: Moment | None, now: float) -> float | None:
    """When a command is due, seconds since the epoch to the millisecond; None for at once.

    Raises :class:`ValueError` or :class:`TypeError` for a time that can't be meant.
    """
    if at is None and after is None:
        return None
    if at is not None and after is not None:
        raise ValueError("give after= or at=, not both")
    if after is not None:
        due = now + _seconds(after, "after")
    elif isinstance(at, dt.datetime):
        if at.utcoffset() is None:
            raise ValueError("at= has no time zone: give datetime.now(UTC) + …, or seconds")
        due = at.timestamp()
    else:
        due = _seconds(at, "at")
    if due > now + MAX_AHEAD:
        raise ValueError(f"{'at' if after is None else 'after'}= is more than 366 days ahead")
    return max(0.0, round(due, 3))


def timer(due: float, target: str, order: str) -> dict[str, str]:
    """The headers of a timer (ADR-51): at `due`, nats-server publishes it to `target`."""
    when = dt.datetime.fromtimestamp(due, dt.UTC).isoformat(timespec="milliseconds")
    return {
        headers.SCHEDULE: f"@at {when.replace('+00:00', 'Z')}",
        headers.SCHEDULE_TARGET: target,
        headers.DUE: milliseconds(due),
        headers.ORDER: order,
    }


def milliseconds(seconds: float) -> str:
    """A time as it stands in a header."""
    return str(round(seconds * 1000))


def _seconds(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}= takes seconds, not {type(value).__name__}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}= is {value}: give seconds, 0 or more")
    return float(value)
