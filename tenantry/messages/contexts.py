"""Keys that tenant contexts verify with, and what issues and renews contexts."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tenantry.messages.base import Message, TenantId


class VerifyKey(Message, frozen=True, kw_only=True):
    """A public key that tenant contexts verify with (KV bucket `keys`, key: `context.<kid>`)."""

    kid: str
    key: str
    """Ed25519 public key, base64url without padding."""
    created: float
    retired: float | None = None
    """A context issued after this time is refused."""
    active: float | None = None
    """Since when routers sign with it; None while it is only made known."""
    revoked: float | None = None
    """When it was taken away: nothing that comes from then on verifies."""
    since: float = 0.0
    """Of a revoked key: what was stored from this time on is refused, too."""
    serial: int = 0
    """Counts its changes: the higher one holds."""
    certificate: str = ""
    """All of the above once more, signed by the root of the context keys; nothing else counts."""


class IssueContext(Message, frozen=True, kw_only=True):
    """`platform.tenants.issue_context`: a context of a tenant for what an operator does for it.

    The answer is :class:`RenewedContext`.
    """

    id: TenantId
    principal: Annotated[str, Meta(min_length=1, max_length=200)] = "operator"
    roles: Annotated[tuple[Annotated[str, Meta(max_length=63)], ...], Meta(max_length=16)] = ()


class RenewContext(Message, frozen=True, kw_only=True):
    """`platform.router.renew_context`: a context that was valid when message `seq` was stored."""

    token: str
    seq: Annotated[int, Meta(ge=1)]


class RenewedContext(Message, frozen=True, kw_only=True):
    """The answer to :class:`RenewContext` and :class:`IssueContext`."""

    token: str
