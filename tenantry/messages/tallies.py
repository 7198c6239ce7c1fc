"""What instances have counted lately, tenant by tenant, for who looks on."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from tenantry.messages.base import Message, TenantId

TallyColumn = Literal["rate", "limited", "errors", "running", "latency"]

LATENCIES = tuple(
    round(step * 10.0**power, 6)
    for power in range(-4, 2)
    for step in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
)
"""Upper bounds of the buckets of `TenantTally.latency`, seconds; one more is for what is slower."""


class TallyAsk(Message, frozen=True, kw_only=True):
    """`stats.tenants`: of which tenants each instance shall tell."""

    by: TallyColumn = "rate"
    """The tenants that are first by this column, …"""
    limit: Annotated[int, Meta(ge=1, le=500)] = 20
    tenants: Annotated[tuple[TenantId, ...], Meta(max_length=500)] = ()
    """… or these, whatever they do."""
    levels: bool = False
    """Whether routers shall also tell what is left of these tenants' rates."""


class TenantTally(Message, frozen=True, kw_only=True):
    """One tenant in one instance: a second's share of its last ten or so, and counts.

    Counts begin anew when a tenant was idle for a minute.
    """

    tenant: str
    """Its id; `*` for all those that there was no room to count apart."""
    rate: float = 0.0
    """Messages a second: admitted by a router, handled by a service."""
    limited: float = 0.0
    """Messages a second that were refused for a limit (429)."""
    errors: float = 0.0
    """Messages a second that a router refused for another reason, or whose handling failed."""
    sent: float = 0.0
    """Messages a second that a service has left: events and commands."""
    running: int = 0
    """Messages in hand now."""
    handled: int = 0
    """Messages that were admitted, or handled, errors too."""
    refused: dict[str, int] = field(default_factory=dict)
    """Messages that a router refused, by code."""
    failed: int = 0
    """Messages whose handling failed."""
    latency: tuple[int, ...] = ()
    """Messages of the last ten to twenty seconds by how long a handler took (`LATENCIES`)."""


class RateLevel(Message, frozen=True, kw_only=True):
    """What is left of a rate's burst now, as one router knows it."""

    scope: str = ""
    """A service or action; empty for the plan's own rate."""
    left: float
    """Messages that could come at once."""
    shared: bool = False
    """Whether that is what all routers have together, or this one's own part."""


class Tallies(Message, frozen=True, kw_only=True):
    """The answer of one instance to :class:`TallyAsk`."""

    service: str
    """`router`, or the name of the service."""
    instance: str
    known: int = 0
    """How many tenants it has counted within the last minute."""
    tenants: tuple[TenantTally, ...] = ()
    levels: dict[str, tuple[RateLevel, ...]] = field(default_factory=dict)
    """By tenant, from the general to the specific."""
