"""A leaky bucket as a meter (GCRA, ITU-T I.371).

Two numbers: how many messages the bucket holds, and when that was. A bucket counted in messages is
exact for any uptime and burst, where one counted in seconds (the theoretical arrival time) loses
precision as the clock grows; and a new plan holds from its first message on.
"""

from __future__ import annotations

ROUNDING = 1e-3
"""What the clock and floating point may lose, messages."""


class Bucket:
    """What has been sent and not leaked yet."""

    __slots__ = ("at", "held", "rate")

    def __init__(self, held: float, at: float, rate: float) -> None:
        self.held = held
        self.at = at
        self.rate = rate

    def level(self, now: float) -> float:
        """How many messages have not leaked out by `now`."""
        return max(self.held - (now - self.at) * self.rate, 0.0)

    def over(self, now: float, rate: float, burst: float) -> float:
        """How far one more message would be over the rim; up to `ROUNDING` it still fits.

        Nobody owes more than a full bucket, even where the plan has become smaller.
        """
        self.held = min(self.level(now), burst)
        self.at, self.rate = now, rate
        return self.held + 1.0 - burst
