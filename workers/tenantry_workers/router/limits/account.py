"""One tenant: what a router knows and owes of its limits, and its messages that wait for them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from tenantry_workers.router.limits.bucket import Bucket
from tenantry_workers.router.limits.meter import Level, Meter, Resume

CREDIT = 0.003
"""Most that one router may owe, as a part of the burst; but never less than one message."""


class Line:
    """One tenant's one meter, as this router sees it."""

    __slots__ = (
        "at",
        "blocked",
        "cap",
        "flying",
        "free",
        "meter",
        "outage",
        "room",
        "share",
        "since",
        "spent",
        "spent_at",
        "start",
        "stock",
    )

    def __init__(self, meter: Meter) -> None:
        self.adopt(meter)
        self.room = math.nan
        """What the store had left at `at`; unknown before its first answer."""
        self.at = 0.0
        self.blocked = 0.0
        """Before then the store has none, for sure."""
        self.free = 0.0
        """From then on it has one, for sure."""
        self.stock = 0
        self.spent = 0.0
        """Owed, and in no order yet."""
        self.spent_at = 0.0
        """The times at which it was spent, added up."""
        self.flying = 0.0
        """Owed, in an order under way."""
        self.outage = 0
        self.share: Bucket | None = None
        self.start = self.since = 0.0

    def adopt(self, meter: Meter) -> None:
        """The limit has become another."""
        self.meter = meter
        self.cap = max(1, math.floor(meter.burst * CREDIT))
        self.blocked = self.free = 0.0

    def estimate(self, now: float) -> float:
        """What the store would have left now if nobody else took anything."""
        meter = self.meter
        if math.isnan(self.room):
            return meter.burst - self.spent - self.flying
        filled = self.room + max(0.0, now - self.at) * meter.rate
        return min(meter.burst, filled) - self.spent - self.flying

    def level(self, now: float) -> Level:
        """What is left, what was leased ahead included."""
        return Level(max(0.0, self.estimate(now) + self.stock), shared=True)

    def trusts(self, now: float, routers: int) -> bool:
        """Whether one more message may go on credit."""
        if self.meter.fail_closed or self.spent + self.flying + 1 > self.cap:
            return False
        if math.isnan(self.room):
            return True
        # All routers may owe their most at the same time, and each again before this one hears.
        reserve = min(2.0 * routers * self.cap, self.meter.burst / 2)
        return self.estimate(now) - 1 >= reserve

    def spare(self, now: float, routers: int) -> float:
        """How many may follow one more message on credit, or -1 where that has to be looked at."""
        meter = self.meter
        owed = self.spent + self.flying
        if self.stock or meter.shadow or meter.fail_closed or owed + 1 > self.cap:
            return -1
        left = self.estimate(now) - 1
        return left if left >= min(2.0 * routers * self.cap, meter.burst / 2) else -1

    def idle(self, now: float) -> bool:
        """Whether nothing would change if it were forgotten."""
        owes = self.spent or self.flying or self.stock
        return not owes and now >= self.free and self.estimate(now) >= self.meter.burst


class Parked:
    """A message that waits for its decision."""

    __slots__ = ("asked", "done", "meters", "resume", "since")

    def __init__(self, meters: Sequence[Meter], resume: Resume, since: float) -> None:
        self.meters = meters
        self.resume = resume
        self.since = since
        self.asked = False
        self.done = False


class Account:
    """One tenant."""

    __slots__ = ("due", "flying", "lines", "parked", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.lines: dict[str, Line] = {}
        self.parked: deque[Parked] = deque()
        self.flying = False
        self.due = False
        """Whether it is on a list for the next orders."""

    def line(self, meter: Meter) -> Line:
        """The line of a meter, which may have other numbers than before."""
        line = self.lines.get(meter.name)
        if line is None:
            line = self.lines[meter.name] = Line(meter)
        elif line.meter is not meter and line.meter != meter:
            line.adopt(meter)
        return line
