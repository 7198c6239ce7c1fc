"""When credentials expire: `30d` from now, or a date."""

from __future__ import annotations

import datetime as dt
import re

from tenantry.cli.usage import UsageError

_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"([1-9]\d{0,5})([mhdw])", re.ASCII)


def parse(text: str, now: float) -> float:
    """Seconds since the epoch; a date without a zone is UTC. Raises :class:`UsageError`."""
    if match := _DURATION.fullmatch(text):
        return now + int(match[1]) * _UNITS[match[2]]
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no expiry", hint="write 30d, 12h, 2026-12-31 or 2026-12-31T18:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    if moment.timestamp() <= now:
        raise UsageError(f"the expiry {text} lies in the past")
    return moment.timestamp()
