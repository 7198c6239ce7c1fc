"""Messages and records of the control plane: what Tenantry itself says and keeps.

Everything here has its JSON Schema in `schemas/`. Times are seconds since the epoch (UTC),
sizes bytes, durations seconds. Records are frozen: a change makes a new one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

TenantId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=63,
        pattern="^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$",
        description="a DNS label in lower case",
    ),
]
Name = Annotated[str, Meta(pattern="^[a-z](?:[a-z0-9_]{0,61}[a-z0-9])?$", max_length=63)]
Seconds = Annotated[float, Meta(ge=0)]
PublicKey = Annotated[
    str, Meta(pattern="^U[A-Z2-7]{55}$", description="public NKEY of a NATS user")
]

TenantState = Literal["active", "suspended", "deleted"]
TenantChange = Literal[
    "provisioned",
    "suspended",
    "resumed",
    "plan_changed",
    "deleted",
    "credentials_issued",
    "credentials_revoked",
]
Kind = Literal["request", "command", "event"]


class Message(Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base of every record and message here; readers ignore fields they do not know."""


# --- tenants and plans -------------------------------------------------------------------------


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


class Credential(Message, frozen=True, kw_only=True):
    """One key of a tenant's programs; the secret half never leaves who made it."""

    public_key: PublicKey
    name: str = ""
    issued: float
    expires: float | None = None
    revoked: float | None = None


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


class PlanList(Message, frozen=True, kw_only=True):
    """The answer of `platform.tenants.plans`."""

    plans: tuple[Plan, ...]


class Empty(Message, frozen=True, kw_only=True):
    """No fields."""


# --- events of a tenant, by the tenants worker ---------------------------------------------------


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


# --- catalogue -----------------------------------------------------------------------------------


class ActionInfo(Message, frozen=True, kw_only=True):
    """One action as a service declares it."""

    name: Name
    kind: Kind
    public: bool = False
    description: str = ""
    timeout: Seconds = 30.0
    input: dict[str, Any] = {}
    """JSON Schema of the body."""
    output: dict[str, Any] = {}
    """JSON Schema of the answer; empty for commands and events."""


class Declaration(Message, frozen=True, kw_only=True):
    """A version of a service (KV bucket `catalogue`, key: `<service>.<version>`)."""

    service: Name
    version: str
    description: str = ""
    actions: tuple[ActionInfo, ...] = ()
    follows: tuple[str, ...] = ()
    """Events it follows, as `<service>.<action>`."""
    replays: tuple[str, ...] = ()
    """What a replay runs again, as `<service>.<action>`."""
    resets: bool = False
    """Whether it can clear a tenant's state before a replay."""
    digest: str = ""
    """Hash over what callers rely on: actions, kinds, schemas."""


class Alive(Message, frozen=True, kw_only=True):
    """`platform.alive.<service>`, each second, and `platform.gone.<service>` when it stops."""

    service: Name
    version: str
    instance: str


# --- delivery and replay -------------------------------------------------------------------------


class Cursor(Message, frozen=True, kw_only=True):
    """Where one tenant stands in one service (KV bucket `cursors`, key: `<service>.<tenant>`).

    Only tenants have one that do not simply go with the lane: one whose message failed and is
    tried again, one that is or was replayed or recovered.
    """

    next: int = 0
    """All of its messages below this sequence of the journal are done with."""
    since: int = 0
    """Those from here to `next` were read apart: what the lane brings of them is done."""
    behind: bool = False
    """Whether it is read apart, from `next` on; the lane passes its messages over meanwhile."""
    failed: int = 0
    """How often message `next` has failed."""
    first_failed: float = 0.0
    retry_at: float = 0.0
    code: str = ""
    """Why it failed last."""
    epoch: int = 0
    """How often the tenant was set back: what an earlier epoch still writes is refused."""
    generation: int = 0
    """Which namespace of its state is live."""
    former: int | None = None
    """The namespace that was live before the last recovery, if it can be gone back to."""


ReplayState = Literal["asked", "running", "ready", "done", "failed", "cancelled"]


UNDER_WAY: frozenset[ReplayState] = frozenset({"asked", "running", "ready"})
"""The states of a replay that has not ended."""


class Replay(Message, frozen=True, kw_only=True):
    """A replay (KV bucket `replays`, key: `<service>.<tenant>`, the last one of each).

    One key takes one replay at a time: a new one is written over an ended one only. A recovery
    is a replay into a namespace of its own, and `ready` when that waits to become the live one.
    """

    id: str
    tenant: TenantId
    service: Name
    by: str = ""
    """Who asked for it."""
    asked: float
    began: float | None = None
    ended: float | None = None
    state: ReplayState = "asked"
    since: int = 0
    """First sequence of the journal that is replayed."""
    until: int = 0
    """First sequence that is not; 0 for where the tenant stands at the end."""
    end: int = 0
    """The same, as it was found when the replay began."""
    actions: tuple[str, ...] = ()
    """Only these (`<service>.<action>`); empty for all that the service declares replayable."""
    skip: tuple[int, ...] = ()
    """Sequences to leave out."""
    rate: Annotated[float, Meta(ge=0)] = 0.0
    """Messages per second at most; 0 for no limit."""
    reset: bool = False
    """Whether the service's reset hook clears the tenant's state first."""
    generation: int | None = None
    """For a recovery, the namespace of the state that it fills."""
    swap: bool = False
    """A recovery: somebody has confirmed that what was filled becomes the live state."""
    cancel: bool = False
    """Somebody has asked to stop it."""
    next: int = 0
    """How far it has come: the next sequence to look at."""
    handled: int = 0
    passed: int = 0
    """Messages left out: not asked for, or by an action that is not replayable."""
    suppressed: int = 0
    """What handlers emitted, sent or asked for that was held back."""
    failed: int = 0
    failures: tuple[int, ...] = ()
    """Sequences of the first messages whose handler failed; they were left out."""
    error: str = ""
    """Why it ended, where it did not end well."""


class DeadLetter(Message, frozen=True, kw_only=True):
    """What the headers of a message in the stream `DEAD` say of its end.

    On the wire each field is a header `Tenant-Dead-<Field>` (`Tenant-Dead-Reason`,
    `Tenant-Dead-First-Failed`, …); headers of NATS's own are kept as `Tenant-Dead-Nats-…`, all
    others and the body are the message's own. Subject: `dead.<tenant>.<service>.<seq>`.
    """

    reason: str
    """The code of the rejection: `bad_message`, `handler_failed`, `bad_context`, …"""
    detail: str = ""
    attempts: int
    service: Name
    """Who gave it up: not always whose message it is."""
    action: str
    """`<service>.<action>` of the message."""
    seq: int
    """Its sequence in the journal."""
    stored: float
    """When the journal stored it."""
    first_failed: float
    at: float
    """When it was given up."""


class Redrive(Message, frozen=True, kw_only=True):
    """A dead letter on its way back (KV bucket `redrives`, key: its number), gone when it is there.

    Where one is left, a redrive was cut off, and the journal may have the message.
    """

    id: str
    """The `Nats-Msg-Id` that it has in the journal, if it is there."""
    since: Annotated[int, Meta(ge=1)]
    """The first sequence of the journal that it can have there."""
    at: float


# --- context keys --------------------------------------------------------------------------------


class VerifyKey(Message, frozen=True, kw_only=True):
    """A public key that tenant contexts verify with (KV bucket `keys`, key: `context.<kid>`)."""

    kid: str
    key: str
    """Ed25519 public key, base64url without padding."""
    created: float
    retired: float | None = None
    """A context issued after this time is refused."""


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


# --- answers -------------------------------------------------------------------------------------


class Problem(Message, frozen=True, kw_only=True):
    """Problem details (RFC 9457), the body of every rejection. Extension members may follow."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str = ""
    """`urn:trace:<trace id>`: what to quote when asking for help."""
    hint: str = ""


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

EVENT_OF_CHANGE: dict[str, type[TenantEvent]] = {
    "provisioned": TenantProvisioned,
    "suspended": TenantSuspended,
    "resumed": TenantResumed,
    "plan_changed": TenantPlanChanged,
    "deleted": TenantDeleted,
    "credentials_issued": CredentialsIssued,
    "credentials_revoked": CredentialsRevoked,
}
