"""Messages and records of the control plane: what Tenantry itself says and keeps.

Everything here has its JSON Schema in `schemas/`. Times are seconds since the epoch (UTC),
sizes bytes, durations seconds. Records are frozen: a change makes a new one.
"""

from tenantry.messages.base import Empty, Message, Name, PublicKey, Seconds, TenantId
from tenantry.messages.catalogue import ActionInfo, Alive, Declaration, Kind
from tenantry.messages.checkpoints import Checkpoint, Lease, Open
from tenantry.messages.contexts import IssueContext, RenewContext, RenewedContext, VerifyKey
from tenantry.messages.cursors import Cursor
from tenantry.messages.erasure import Erasure, InHand
from tenantry.messages.events import (
    EVENT_OF_CHANGE,
    CredentialsIssued,
    CredentialsRevoked,
    MessageDead,
    QuotaExhausted,
    QuotaWarned,
    ResourceQuotaUpdated,
    TenantDeleted,
    TenantEvent,
    TenantPlanChanged,
    TenantProvisioned,
    TenantResumed,
    TenantSuspended,
)
from tenantry.messages.letters import DeadLetter, Redrive
from tenantry.messages.plans import (
    SHIPPED_PLANS,
    Override,
    Plan,
    PlanList,
    Quota,
    Rate,
    SetOverride,
)
from tenantry.messages.problems import Problem
from tenantry.messages.replays import UNDER_WAY, Replay, ReplayState
from tenantry.messages.security import SecurityEvent, SecurityKind
from tenantry.messages.tallies import RateLevel, Tallies, TallyAsk, TenantTally
from tenantry.messages.tenants import (
    CreateTenant,
    Credential,
    IssueCredentials,
    ListTenants,
    RevokeCredentials,
    SetPlan,
    SuspendTenant,
    Suspension,
    Tenant,
    TenantAnswer,
    TenantChange,
    TenantPage,
    TenantRef,
    TenantState,
)
from tenantry.messages.usage import Count, Usage
from tenantry.messages.volumes import Volume, VolumeProgress

__all__ = [
    "EVENT_OF_CHANGE",
    "SHIPPED_PLANS",
    "UNDER_WAY",
    "ActionInfo",
    "Alive",
    "Checkpoint",
    "Count",
    "CreateTenant",
    "Credential",
    "CredentialsIssued",
    "CredentialsRevoked",
    "Cursor",
    "DeadLetter",
    "Declaration",
    "Empty",
    "Erasure",
    "InHand",
    "IssueContext",
    "IssueCredentials",
    "Kind",
    "Lease",
    "ListTenants",
    "Message",
    "MessageDead",
    "Name",
    "Open",
    "Override",
    "Plan",
    "PlanList",
    "Problem",
    "PublicKey",
    "Quota",
    "QuotaExhausted",
    "QuotaWarned",
    "Rate",
    "RateLevel",
    "Redrive",
    "RenewContext",
    "RenewedContext",
    "Replay",
    "ReplayState",
    "ResourceQuotaUpdated",
    "RevokeCredentials",
    "Seconds",
    "SecurityEvent",
    "SecurityKind",
    "SetOverride",
    "SetPlan",
    "SuspendTenant",
    "Suspension",
    "Tallies",
    "TallyAsk",
    "Tenant",
    "TenantAnswer",
    "TenantChange",
    "TenantDeleted",
    "TenantEvent",
    "TenantId",
    "TenantPage",
    "TenantPlanChanged",
    "TenantProvisioned",
    "TenantRef",
    "TenantResumed",
    "TenantState",
    "TenantSuspended",
    "TenantTally",
    "Usage",
    "VerifyKey",
    "Volume",
    "VolumeProgress",
]
