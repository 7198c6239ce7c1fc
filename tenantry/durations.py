"""Durations as people write them: `30s`, `5m`, `2h`, `3d`, `1w`."""

from __future__ import annotations

import re

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"([1-9]\d{0,5})([smhdw])", re.ASCII)


def seconds(text: str) -> int | None:
    """The seconds of a duration; None for what is none."""
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _UNITS[match[2]] if match else None
