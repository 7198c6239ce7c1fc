"""When credentials expire: `30d` from now, or a date."""

from __future__ import annotations

from tenantry import durations
from tenantry.cli import moment
from tenantry.cli.usage import UsageError


def parse(text: str, now: float) -> float:
    """Seconds since the epoch; a date without a zone is UTC. Raises :class:`UsageError`."""
    if (seconds := durations.seconds(text)) is not None:
        return now + seconds
    if (when := moment.date(text)) is None:
        raise UsageError(
            f"{text!r} is no expiry", hint="write 30d, 12h, 2026-12-31 or 2026-12-31T18:00:00Z"
        )
    if when <= now:
        raise UsageError(f"the expiry {text} lies in the past")
    return when
