"""Events of a tenant's own life, by the tenants worker."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tenantry.messages.base import Message, Name, TenantId


class TenantEvent(Message, frozen=True, kw_only=True):
    """Common to all events about a tenant's own life."""

    tenant: TenantId
    plan: Name
    at: float


class TenantProvisioned(TenantEvent, frozen=True, kw_only=True):
    """A tenant was created."""


class TenantSuspended(TenantEvent, frozen=True, kw_only=True):
    """A tenant was suspended: the router refuses its messages."""

    reason: str = ""


class TenantResumed(TenantEvent, frozen=True, kw_only=True):
    """A suspended tenant may send again."""


class TenantPlanChanged(TenantEvent, frozen=True, kw_only=True):
    """A tenant is on another plan."""


class TenantDeleted(TenantEvent, frozen=True, kw_only=True):
    """A tenant was deleted; all its credentials are revoked."""


class CredentialsIssued(TenantEvent, frozen=True, kw_only=True):
    """A program of the tenant got credentials."""

    public_key: str


class CredentialsRevoked(TenantEvent, frozen=True, kw_only=True):
    """Credentials were revoked; `public_key` is empty where it was all of them."""

    public_key: str = ""


class ResourceQuotaUpdated(TenantEvent, frozen=True, kw_only=True):
    """Other limits hold for the tenant: its plan was changed, or what it has beside it."""

    note: str = ""
    """Why, where an operator has said so."""


class QuotaWarned(TenantEvent, frozen=True, kw_only=True):
    """A tenant has used 80 % of what its plan includes."""

    quota: str
    """`per-month`, `orders.place.per-day`; `journal-bytes` or `connections`."""
    window: str
    """The day or month: `2026-11-21`, `2026-11`; empty for what is not of one."""
    used: int
    amount: int
    """What the plan includes."""
    limit: int
    """After so many its messages are refused."""


class QuotaExhausted(QuotaWarned, frozen=True, kw_only=True):
    """A tenant has used all that its plan includes."""


class MessageDead(TenantEvent, frozen=True, kw_only=True):
    """A service gave up on a message of the tenant; it waits as a dead letter."""

    number: Annotated[int, Meta(ge=1)]
    """Of the dead letter, for `tenantry dead show`."""
    service: Name
    """Who gave it up."""
    action: str
    """`<service>.<action>` of the message."""
    reason: str
    attempts: int
    seq: int
    """The message's sequence in the journal."""


EVENT_OF_CHANGE: dict[str, type[TenantEvent]] = {
    "provisioned": TenantProvisioned,
    "suspended": TenantSuspended,
    "resumed": TenantResumed,
    "plan_changed": TenantPlanChanged,
    "limits_changed": ResourceQuotaUpdated,
    "deleted": TenantDeleted,
    "credentials_issued": CredentialsIssued,
    "credentials_revoked": CredentialsRevoked,
}
