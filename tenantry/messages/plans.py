"""Plans: what a tenant may buy, and what one tenant has beside its plan."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from tenantry.messages.base import Message, Name, Seconds, TenantId

Scope = Annotated[
    str,
    Meta(
        pattern=r"^(?:[a-z](?:[a-z0-9_]{0,61}[a-z0-9])?(?:\.[a-z](?:[a-z0-9_]{0,61}[a-z0-9])?)?)?$",
        max_length=127,
        description="a service, an action as `<service>.<action>`, or empty for all",
    ),
]
Period = Literal["day", "month"]
Outage = Literal["open", "closed"]
Between = Literal["warn", "slow", "low", "charge"]


class Rate(Message, frozen=True, kw_only=True):
    """So many messages a second to one service or action."""

    scope: Scope
    rate: Annotated[float, Meta(gt=0)]
    """Messages per second, on average."""
    burst: Annotated[int, Meta(ge=1)]
    """Messages at once, after a rest."""
    fail: Outage = "open"
    """While routers can't share what is left: go on from each one's own part, or refuse."""
    shadow: bool = False
    """Only counted and reported."""


class Quota(Message, frozen=True, kw_only=True):
    """So many messages in a day or month of the calendar (UTC)."""

    scope: Scope = ""
    period: Period
    amount: Annotated[int, Meta(ge=1)]
    """What the plan includes."""
    hard: Annotated[int, Meta(ge=1)] | None = None
    """From here on messages are refused; by default the amount."""
    soft: Annotated[int, Meta(ge=0)] | None = None
    """From here on `between` holds; by default 80 % of the amount, where `hard` is more the
    amount."""
    between: Between = "warn"
    """What holds from soft to hard: only the event, up to `delay` more time, the lowest weight, or
    overage that is billed."""
    delay: Annotated[float, Meta(gt=0, le=5)] = 1.0
    """The longest that `slow` holds a message up, just before `hard`, seconds."""
    billing: bool = False
    """Never overshoots, whatever happens: a router that dies counts its whole share as used."""
    shadow: bool = False
    """Only counted and reported."""

    @property
    def name(self) -> str:
        """What it is called in answers: `per-day`, `orders.place.per-month`."""
        return f"{self.scope}.per-{self.period}" if self.scope else f"per-{self.period}"

    @property
    def limit(self) -> int:
        """The first message that is refused is the one after so many."""
        return self.hard if self.hard is not None else self.amount

    @property
    def threshold(self) -> int:
        """The messages after which `between` holds."""
        if self.soft is not None:
            return self.soft
        return self.amount if self.limit > self.amount else self.amount * 4 // 5


class Plan(Message, frozen=True, kw_only=True):
    """What a tenant has bought (KV bucket `plans`, key: the name)."""

    name: Name
    rate: Annotated[float, Meta(gt=0)] = 50.0
    """Messages per second, on average."""
    burst: Annotated[int, Meta(ge=1)] = 100
    """Messages at once, after a rest."""
    fail: Outage = "open"
    """While routers can't share what is left of the rate: go on from each one's own part, or
    refuse."""
    shadow: bool = False
    """Whether the rate is only counted and reported."""
    rates: tuple[Rate, ...] = ()
    """Rates of single services and actions, beside the plan's own."""
    quotas: tuple[Quota, ...] = ()
    concurrency: Annotated[int, Meta(ge=0)] = 0
    """Messages that one service works on at the same time; 0 for no bound of its own."""
    max_body: Annotated[int, Meta(ge=0)] = 262_144
    """Largest body, bytes."""
    retention: Annotated[int, Meta(ge=60)] = 7 * 86_400
    """How long the journal keeps a message of this tenant, seconds."""
    journal_bytes: Annotated[int, Meta(ge=0)] = 0
    """What the journal may hold of this tenant before its commands are refused; 0 for no bound."""
    connections: Annotated[int, Meta(ge=0)] = 0
    """Connections that its programs may have at the same time; 0 for no bound."""
    subscriptions: Annotated[int, Meta(ge=0)] = 0
    """Subscriptions that one connection of its programs may have; 0 for no bound."""
    timeout: Annotated[float, Meta(gt=0)] = 30.0
    """Longest deadline of a request, seconds."""
    weight: Annotated[int, Meta(ge=1)] = 1
    """Share of a busy worker, relative to the other plans."""
    features: tuple[Name, ...] = ()


class Override(Message, frozen=True, kw_only=True):
    """What one tenant has in place of its plan's; a field that is null is the plan's."""

    until: Seconds | None = None
    """When it ends; null for never."""
    note: str = ""
    """Why, and who."""
    rate: Annotated[float, Meta(gt=0)] | None = None
    burst: Annotated[int, Meta(ge=1)] | None = None
    fail: Outage | None = None
    shadow: bool | None = None
    rates: tuple[Rate, ...] | None = None
    quotas: tuple[Quota, ...] | None = None
    concurrency: Annotated[int, Meta(ge=0)] | None = None
    max_body: Annotated[int, Meta(ge=0)] | None = None
    retention: Annotated[int, Meta(ge=60)] | None = None
    journal_bytes: Annotated[int, Meta(ge=0)] | None = None
    connections: Annotated[int, Meta(ge=0)] | None = None
    subscriptions: Annotated[int, Meta(ge=0)] | None = None
    timeout: Annotated[float, Meta(gt=0)] | None = None
    weight: Annotated[int, Meta(ge=1)] | None = None
    features: tuple[Name, ...] | None = None


class PlanList(Message, frozen=True, kw_only=True):
    """The answer of `platform.tenants.plans`, and what `platform.tenants.apply_plans` is asked."""

    plans: tuple[Plan, ...]
    revision: int = 0
    """The last revision of the bucket `plans` that this is."""


class SetOverride(Message, frozen=True, kw_only=True):
    """`platform.tenants.override`: null takes it away."""

    id: TenantId
    override: Override | None = None


SHIPPED_PLANS = (
    Plan(name="standard"),
    Plan(
        name="premium",
        rate=500.0,
        burst=1_000,
        max_body=524_288,
        retention=30 * 86_400,
        timeout=60.0,
        weight=4,
    ),
    Plan(
        name="business",
        rate=5_000.0,
        burst=10_000,
        max_body=1_000_000,
        retention=365 * 86_400,
        timeout=120.0,
        weight=16,
    ),
)
"""Made when the bucket `plans` lacks them; never overwritten."""
