"""Plans: what a tenant may buy."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tenantry.messages.base import Message, Name


class Plan(Message, frozen=True, kw_only=True):
    """What a tenant has bought (KV bucket `plans`, key: the name)."""

    name: Name
    rate: Annotated[float, Meta(gt=0)] = 50.0
    """Messages per second, on average."""
    burst: Annotated[int, Meta(ge=1)] = 100
    """Messages at once, after a rest."""
    max_body: Annotated[int, Meta(ge=0)] = 262_144
    """Largest body, bytes."""
    retention: Annotated[int, Meta(ge=60)] = 7 * 86_400
    """How long the journal keeps a message of this tenant, seconds."""
    timeout: Annotated[float, Meta(gt=0)] = 30.0
    """Longest deadline of a request, seconds."""
    weight: Annotated[int, Meta(ge=1)] = 1
    """Share of a busy worker, relative to the other plans."""
    features: tuple[str, ...] = ()


class PlanList(Message, frozen=True, kw_only=True):
    """The answer of `platform.tenants.plans`."""

    plans: tuple[Plan, ...]


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
