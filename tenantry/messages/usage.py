"""What a tenant has used of its quotas."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from tenantry.messages.base import Message

Total = Annotated[int, Meta(ge=0)]


class Count(Message, frozen=True, kw_only=True):
    """One quota in its newest day or month."""

    window: str = ""
    """`2026-11-21` or `2026-11`, UTC."""
    leased: Total = 0
    """What routers have taken: used, or in their hands. Never more than the quota's limit."""
    used: Total = 0
    """What they have told that they used."""
    told: str = ""
    """The last event about it: empty, `warned` or `exhausted`."""


class Usage(Message, frozen=True, kw_only=True):
    """One tenant's counts by quota (KV bucket `usage`, key: the tenant's id)."""

    counts: dict[str, Count] = field(default_factory=dict)
