"""What one instance has done, by action, as `$SRV.STATS` reports it (ADR-32)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class ActionStats:
    """Counts of one action; times are nanoseconds, as ADR-32 asks."""

    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing: int = 0

    def done(self, nanoseconds: int, error: str = "") -> None:
        """Count one message."""
        self.requests += 1
        self.processing += nanoseconds
        if error:
            self.errors += 1
            self.last_error = error


@dataclass(slots=True)
class Stats:
    """Counts of one service in one instance."""

    started: float = field(default_factory=time.time)
    actions: dict[str, ActionStats] = field(default_factory=dict)

    def of(self, name: str) -> ActionStats:
        """The counts of `<service>.<action>`."""
        found = self.actions.get(name)
        if found is None:
            found = self.actions[name] = ActionStats()
        return found
