"""Where in the journal: a sequence, a time, or so long ago (`--since`, `--until`)."""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import NamedTuple

from tenantry import durations
from tenantry.cli.usage import UsageError

_SEQUENCE = re.compile(r"\d{1,19}", re.ASCII)

HELP = "SEQ, a time such as 2026-11-21T08:00:00Z, or 2h for so long ago"


class Point(NamedTuple):
    """A sequence of the journal or a time, seconds since the epoch; the other is None."""

    seq: int | None = None
    time: float | None = None


def date(text: str) -> float | None:
    """Seconds since the epoch of an ISO 8601 date or time, UTC unless it says else; or None."""
    if "-" not in text:
        return None  # Python takes digits alone for a date too
    try:
        when = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=dt.UTC)).timestamp()


def parse(text: str, now: float | None = None) -> Point:
    """Read a sequence, a time or a duration before `now`. Raises :class:`UsageError`."""
    if _SEQUENCE.fullmatch(text):
        return Point(seq=int(text))
    if (when := _time(text, now)) is None:
        raise UsageError(
            f"{text!r} is neither a sequence nor a time",
            hint="write 4711, 2h, 2026-12-31 or 2026-12-31T18:00:00Z",
        )
    return Point(time=when)


def parse_time(text: str, now: float | None = None) -> float:
    """Read a time or a duration before `now`, where a sequence says nothing."""
    if (when := _time(text, now)) is None:
        raise UsageError(
            f"{text!r} is no time", hint="write 2h for so long ago, 2026-12-31 or …T18:00:00Z"
        )
    return when


def _time(text: str, now: float | None) -> float | None:
    if (ago := durations.seconds(text)) is not None:
        return (time.time() if now is None else now) - ago
    return date(text)
