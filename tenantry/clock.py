"""The time of the mesh: nats-server's, as far as this process has compared its own clock with it.

Contexts and schedules carry instants from one machine to another: they are read off this clock.
"""

from __future__ import annotations

import time

_ahead = 0.0


def now() -> float:
    """Seconds since the epoch by nats-server's clock; by our own until they were compared."""
    return time.time() - _ahead


def is_ahead(seconds: float) -> None:
    """Take note of how far this process's clock is ahead of nats-server's; negative: behind."""
    global _ahead  # noqa: PLW0603  (a process has one clock)
    _ahead = seconds
