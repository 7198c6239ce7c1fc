"""How many messages a service should run at a time, found out from how long they take.

Multiplicative decrease where messages take much longer than usual, additive increase where all
slots are in use and they do not: AIMD on latency, as Netflix's concurrency-limits do it. Each
action is compared with itself, so a mix of quick and slow ones is no slowness.
"""

from __future__ import annotations

_WINDOW = 0.5
_SAMPLES = 16
_SLOW = 2.0
_LESS = 0.8
_FAST = 0.3
_DRIFT = 0.01


class Adaptive:
    """Keeps `limit` between a tenth of `most` (at least 1) and `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.least = max(1, most // 10)
        self.limit = most
        self._usual: dict[str, float] = {}
        """By action, the mean of a window in which it was quick."""
        self._sums: dict[str, tuple[int, float]] = {}
        self._samples = 0
        self._full = False
        self._began = 0.0

    def done(self, action: str, seconds: float, now: float, *, full: bool) -> bool:
        """Take note of a message; `full` where no slot was free. True where `limit` changed."""
        if not self._samples:
            self._began = now
        count, total = self._sums.get(action, (0, 0.0))
        self._sums[action] = count + 1, total + seconds
        self._samples += 1
        self._full |= full
        if self._samples < _SAMPLES or now - self._began < _WINDOW:
            return False
        before, slow = self.limit, self._slowness()
        if slow > _SLOW:
            self.limit = max(self.least, int(self.limit * _LESS))
        elif self._full:
            self.limit = min(self.most, self.limit + max(1, self.most // 20))
        self._sums.clear()
        self._samples, self._full = 0, False
        return self.limit != before

    def _slowness(self) -> float:
        """How many times longer than usual the window's messages took."""
        took = expected = 0.0
        for action, (count, total) in self._sums.items():
            mean = total / count
            usual = self._usual.setdefault(action, mean)
            # Towards less quickly, towards more slowly: what lasts becomes usual in the end.
            self._usual[action] = usual + (mean - usual) * (_FAST if mean < usual else _DRIFT)
            took += total
            expected += count * usual
        return took / expected if expected else 1.0
