"""Whether a service is overloaded: by how long requests wait, not by how many do.

The rule is CoDel's (Nichols and Jacobson, RFC 8289): a queue is standing where everybody has waited
for longer than a target during a whole interval; one short wait shows that it is not. A sender of
packets slows down after few losses, a sender of requests does not: so as long as the queue stands,
what has waited too long is shed at once and not one by one.
"""

from __future__ import annotations

TARGET = 0.25
"""A wait that does no harm yet, seconds; at least as long as a request of the service takes."""

INTERVAL = 1.0
"""How long everybody has to wait longer than that, seconds; at least four targets."""


class Overload:
    """What the waits of requests say, in the order in which they end."""

    def __init__(self, *, target: float = TARGET, interval: float = INTERVAL) -> None:
        self._target = target
        self._interval = interval
        self._above: float | None = None
        """Since when all have waited for too long."""
        self.shedding = False

    def target(self, usual: float) -> float:
        """The wait that is long where a request usually takes `usual` seconds."""
        return max(self._target, usual)

    def waited(self, seconds: float, now: float, usual: float) -> bool:
        """Note how long the next one has waited; True while others should be shed."""
        target = self.target(usual)
        if seconds <= target:
            self.calm()
        elif self._above is None:
            self._above = now
        elif now - self._above >= max(self._interval, 4 * target):
            self.shedding = True
        return self.shedding

    def calm(self) -> None:
        """Nobody waits, or only one tenant for itself."""
        self._above = None
        self.shedding = False
