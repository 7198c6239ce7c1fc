"""What one instance has done, by action, as `$SRV.STATS` reports it (ADR-32), and by tenant."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tenantry.runtime.tallies import Tally, TallyBook


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
    tenants: TallyBook = field(default_factory=TallyBook)
    running: int = 0
    """Messages in hand now."""
    slots: int = 0
    """How many may be in a handler's hands at once now."""
    refused: Counter[str] = field(default_factory=Counter)
    """Requests that got no slot, by why."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Counts of the actions that handlers named and no service declares so, by name."""
    processed: Callable[[str, float, str], None] | None = None
    """Is told how long each handler took: its name, seconds, the code of an error."""
    queued: Callable[[float], None] | None = None
    """Is told how long each message waited for its handler, seconds."""

    def of(self, name: str) -> ActionStats:
        """The counts of `<service>.<action>`."""
        found = self.actions.get(name)
        if found is None:
            found = self.actions[name] = ActionStats()
        return found

    def began(self, tenant: str) -> Tally:
        """A message is in hand: until :meth:`left`, which must follow."""
        self.running += 1
        return self.tenants.began(tenant)

    def ended(self, name: str, tally: Tally, nanoseconds: int, error: str = "") -> None:
        """A handler has ended after so long; `error` is the code of its rejection."""
        self.of(name).done(nanoseconds, error)
        self.tenants.ended(tally, nanoseconds / 1e9, failed=bool(error))
        if self.processed is not None:
            self.processed(name, nanoseconds / 1e9, error)

    def left(self, tally: Tally) -> None:
        """A message is no longer in hand, however it went."""
        self.running -= 1
        self.tenants.left(tally)
