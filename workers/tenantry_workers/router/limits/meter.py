"""Rate limits, and what is decided by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Meter(NamedTuple):
    """One rate limit that a message is subject to: `burst` at once, `rate` a second on average."""

    name: str
    rate: float
    burst: int
    fail_closed: bool = False
    """Whether it admits nothing while what the routers share can't be reached."""
    shadow: bool = False
    """Whether it is only counted and reported."""


class Decision(NamedTuple):
    """What a limiter says of one message."""

    allowed: bool
    meter: Meter
    """The one that is exceeded, the most specific of several; that with the least left else."""
    remaining: int
    """Messages that could follow at once."""
    retry_after: float = 0.0
    """Seconds until one is allowed; 0 where this one is."""
    away: bool = False
    """Refused for the store's absence, not for the tenant's rate."""
    shadowed: tuple[str, ...] = ()
    """Names of the shadow meters that would have refused it."""


class Level(NamedTuple):
    """What is left of one meter of a tenant."""

    left: float
    """Messages that could come at once."""
    shared: bool
    """Whether all routers together have that, or this one alone."""


Resume = Callable[[Decision], None]
"""Takes the decision on a parked message; called in the event loop, and must not block."""


class Limiter(Protocol):
    """Decides in memory; never waits."""

    def take(self, tenant: str, meters: Sequence[Meter], now: float) -> Decision | None:
        """Count a message of `tenant` at `now` (monotonic seconds) against all these meters.

        `meters` go from the general to the specific. All must have room, or nothing is taken.
        None: it can't be told yet, so :meth:`park` the message.
        """
        ...

    def park(self, tenant: str, meters: Sequence[Meter], resume: Resume) -> None:
        """Decide within a few milliseconds, in the order of parking for each tenant."""
        ...

    def level(self, tenant: str, meter: Meter, now: float) -> Level:
        """What is left of a meter, as far as this router knows; changes nothing."""
        ...
