"""What the messages of an action take: measured running time."""

from __future__ import annotations

_FIRST = 0.01
_SHARE = 0.1
_FORGET = 1.001


class Work:
    """Seconds that messages take, by action: on average lately, and at best."""

    def __init__(self) -> None:
        self._mean: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self.mean = _FIRST
        """Over all actions."""

    def of(self, action: str) -> float:
        """What the next message of an action is expected to take."""
        return self._mean.get(action, _FIRST)

    def best(self, action: str) -> float:
        """The shortest that the action took lately; 0 where nothing is known."""
        return self._best.get(action, 0.0)

    def add(self, action: str, seconds: float) -> None:
        """Take one message into account."""
        known = self._mean.get(action)
        if known is None:
            self._mean[action] = self._best[action] = seconds
        else:
            self._mean[action] = known + _SHARE * (seconds - known)
            best = self._best[action] * _FORGET
            self._best[action] = min(best, seconds)
        self.mean += _SHARE * (seconds - self.mean)
