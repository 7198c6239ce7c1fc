"""Tenants, their credentials, and what the tenants worker is asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from tenantry.messages.base import Message, Name, PublicKey, TenantId
from tenantry.messages.plans import Override

TenantState = Literal["active", "suspended", "deleted"]
TenantChange = Literal[
    "provisioned",
    "suspended",
    "resumed",
    "plan_changed",
    "limits_changed",
    "deleted",
    "credentials_issued",
    "credentials_revoked",
]


class Credential(Message, frozen=True, kw_only=True):
    """One key of a tenant's programs; the secret half never leaves who made it."""

    public_key: PublicKey
    name: str = ""
    issued: float
    expires: float | None = None
    revoked: float | None = None
    scope: str = ""
    """Whose limits the server holds its connections to: `plan:<name>#<generation>`, or
    `tenant:<id>` where they are the tenant's own. Empty for credentials from before there were
    any."""
    signer: str = ""
    """Public key of the tenants' signing key; empty for credentials from before it could change."""


class Tenant(Message, frozen=True, kw_only=True):
    """One customer of the SaaS (KV bucket `tenants`, key: the id)."""

    id: TenantId
    plan: Name
    state: TenantState = "active"
    created: float
    updated: float
    change: TenantChange = "provisioned"
    """What the last revision changed; each revision becomes one event of the tenant."""
    subject: str = ""
    """What the last change was about: a plan, a credential's key, a reason."""
    credentials: tuple[Credential, ...] = ()
    override: Override | None = None
    """What holds for this tenant in place of its plan."""


class CreateTenant(Message, frozen=True, kw_only=True):
    """`platform.tenants.create`; with a `public_key`, credentials are issued at once."""

    id: TenantId
    plan: Name = "standard"
    public_key: PublicKey | None = None


class TenantRef(Message, frozen=True, kw_only=True):
    """Names one tenant: `platform.tenants.show`, `resume`, `delete`."""

    id: TenantId


class SuspendTenant(Message, frozen=True, kw_only=True):
    """`platform.tenants.suspend`."""

    id: TenantId
    reason: Annotated[str, Meta(max_length=500)] = ""


class SetPlan(Message, frozen=True, kw_only=True):
    """`platform.tenants.set_plan`."""

    id: TenantId
    plan: Name


class Suspension(Message, frozen=True, kw_only=True):
    """A tenant whose stored messages wait (KV bucket `suspended`, key: the id).

    It follows from the tenant's record, which no service may read.
    """

    since: float
    """When it was suspended, seconds since the epoch."""


class ListTenants(Message, frozen=True, kw_only=True):
    """`platform.tenants.list`: a page in the order of ids, after `after`."""

    after: str = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 500
    state: TenantState | None = None


class TenantPage(Message, frozen=True, kw_only=True):
    """The answer to :class:`ListTenants`: tenants without their credentials.

    `next` is the `after` of the next page, if any.
    """

    tenants: tuple[Tenant, ...]
    credentials: tuple[int, ...] = ()
    """Counts of the credentials in force of each, in the same order."""
    next: str | None = None


class IssueCredentials(Message, frozen=True, kw_only=True):
    """`platform.tenants.issue_credentials` for a key pair that the asker has made."""

    id: TenantId
    public_key: PublicKey
    name: Annotated[str, Meta(max_length=80)] = ""
    expires: float | None = None


class RevokeCredentials(Message, frozen=True, kw_only=True):
    """`platform.tenants.revoke_credentials`: one key, or all of the tenant's."""

    id: TenantId
    public_key: PublicKey | None = None


class TenantAnswer(Message, frozen=True, kw_only=True):
    """A tenant after a change; `jwt` is the signed user JWT where credentials were issued."""

    tenant: Tenant
    jwt: str | None = None
