"""A circuit breaker for each tenant: calls that only fail stop taking slots.

Closed, it counts failures without a success between them; open, it lets nothing through for a time
that doubles; half open, one probe at a time. Only tenants whose calls fail are remembered.
"""

from __future__ import annotations

import enum

FAILURES = 20
"""So many in a row open the breaker."""

PAUSE = 1.0
"""How long it is open at first, seconds; twice as long after each probe that fails, …"""

LONGEST = 60.0
"""… up to this."""

_REMEMBERED = 10_000


class Verdict(enum.Enum):
    """What became of a call."""

    WORKED = "worked"
    FAILED = "failed"
    """By the service's fault: it raised what it should not, or took too long."""
    NEITHER = "neither"
    """It did not run, or its asker was refused for what it sent."""


class _Circuit:
    __slots__ = ("failures", "pause", "probing", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.pause = 0.0
        """0 while it is closed."""
        self.until = 0.0
        self.probing = False


class Breakers:
    """The breakers of the tenants of one service."""

    def __init__(
        self, *, failures: int = FAILURES, pause: float = PAUSE, longest: float = LONGEST
    ) -> None:
        self._failures = failures
        self._pause = pause
        self._longest = longest
        self._circuits: dict[str, _Circuit] = {}

    def __len__(self) -> int:
        """How many tenants are remembered."""
        return len(self._circuits)

    def refused(self, tenant: str, now: float) -> float:
        """Seconds until a call may get through; 0 where this one may: then tell `done` of it."""
        circuit = self._circuits.get(tenant)
        if circuit is None or not circuit.pause:
            return 0.0
        if now < circuit.until:
            return circuit.until - now
        if circuit.probing:
            return circuit.pause
        circuit.probing = True
        return 0.0

    def done(self, tenant: str, verdict: Verdict, now: float) -> bool:
        """Take note of a call that got through; True where the breaker opens, or stays open."""
        circuit = self._circuits.get(tenant)
        if verdict is Verdict.FAILED:
            if circuit is None:
                circuit = self._remember(tenant)
            return self._failed(circuit, now)
        if circuit is not None:
            circuit.probing = False
            if verdict is Verdict.WORKED:
                del self._circuits[tenant]
        return False

    def open(self, now: float) -> list[str]:
        """The tenants whose calls are refused now."""
        return [name for name, each in self._circuits.items() if now < each.until]

    def _failed(self, circuit: _Circuit, now: float) -> bool:
        circuit.failures += 1
        if circuit.pause:
            if now < circuit.until:
                return False  # it began before the breaker opened
            circuit.pause = min(circuit.pause * 2, self._longest)
        elif circuit.failures >= self._failures:
            circuit.pause = self._pause
        else:
            return False
        circuit.probing = False
        circuit.until = now + circuit.pause
        return True

    def _remember(self, tenant: str) -> _Circuit:
        if len(self._circuits) >= _REMEMBERED:
            del self._circuits[next(iter(self._circuits))]
        circuit = self._circuits[tenant] = _Circuit()
        return circuit
