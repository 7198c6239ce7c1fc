"""What a limiter has done since the start."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Plain sums, to be read at any time."""

    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By verdict (`allowed`, `refused`, `away`, `shadowed`) and meter."""
    calls: int = 0
    """Round trips to the store."""
    orders: int = 0
    """Script runs in them, one a tenant."""
    failures: int = 0
    """Calls that failed or came too late."""
    leased: int = 0
    """Messages that the store has granted ahead."""
    credit: int = 0
    """Messages admitted at once and charged afterwards."""
    returned: int = 0
    """Grants that went back unused."""
    parked: int = 0
    """Messages that had to wait for a grant."""
    aways: int = 0
    """How often the store was given up."""
    away: float = 0.0
    """For how long, seconds, up to its last return."""
