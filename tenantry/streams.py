"""The streams of the mesh: what JetStream keeps, and how.

`JOURNAL` holds every admitted command and event, `DEAD` what a service gave up on, `SCHEDULES` what
is sent later and `TIMERS` when, `AUDIT` the refusals that look like attacks, the `KV_*` streams the
buckets (ADR-8).
"""

from __future__ import annotations

from typing import Any

import msgspec

from tenantry import subjects

JOURNAL = "JOURNAL"
DEAD = "DEAD"
SCHEDULES = "SCHEDULES"
TIMERS = "TIMERS"
AUDIT = "AUDIT"
RESTORING = "RESTORING"
"""Only there while `tenantry restore` is at work, or was interrupted: then no worker may run."""

BUCKETS = {
    "tenants": 64,
    "plans": 64,
    "keys": 8,
    "catalogue": 1,
    "state": 8,
    "cursors": 1,
    "checkpoints": 1,
    "leases": 1,
    "replays": 32,
    "redrives": 1,
    "usage": 1,
    "volumes": 1,
    "suspended": 1,
}
"""The buckets, and how many revisions each key keeps."""

EXPIRING = frozenset({"leases"})
"""Buckets whose keys are never used again: the marker of a deleted one goes after some time."""

_SECOND = 1_000_000_000


class JournalLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much the journal may hold (`[journal]` in mesh.toml). A full journal refuses."""

    max_bytes: int = 10 * 1024**3
    """Bytes on disk; -1 for no limit."""
    max_age: float = 0.0
    """Oldest message, seconds; 0 leaves it to each plan's retention."""
    max_message: int = 1_048_576
    """Largest message, bytes."""
    replicas: int = 1
    """Copies in a cluster: 1, 3 or 5."""
    dedup_window: float = 120.0
    """How long a `Nats-Msg-Id` is remembered, seconds."""


class DeadLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is kept of dead letters (`[dead]` in mesh.toml).

    When it is full, what fails for good stays in its place, and its tenant's later messages wait.
    """

    max_bytes: int = 1024**3
    """Bytes on disk; -1 for no limit."""
    max_age: float = 0.0
    """Oldest dead letter, seconds; 0 keeps it until somebody decides."""
    replicas: int = 1
    """Copies in a cluster: 1, 3 or 5."""


class ScheduleLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much may wait for its time (`[schedules]` in mesh.toml). When full, it refuses."""

    max_bytes: int = 1024**3
    """Bytes on disk; -1 for no limit."""
    replicas: int = 1
    """Copies in a cluster: 1, 3 or 5."""


class AuditLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is kept of refusals that look like attacks (`[audit]` in mesh.toml)."""

    max_bytes: int = 256 * 1024**2
    """Bytes on disk; when it is full the oldest goes; -1 for no limit."""
    max_age: float = 90 * 86_400.0
    """Oldest event, seconds; 0 for no limit."""
    replicas: int = 1
    """Copies in a cluster: 1, 3 or 5."""


def journal_config(limits: JournalLimits) -> dict[str, Any]:
    """The journal. Its transform sorts by NATS's own partition of the tenant.

    `discard: new` makes a full journal refuse instead of forgetting the oldest message.
    """
    return {
        "name": JOURNAL,
        "subjects": ["tenant.*.*.*"],
        "subject_transform": {
            "src": "tenant.*.*.*",
            "dest": (
                f"journal.{{{{partition({subjects.PARTITIONS},1)}}}}"
                ".{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}"
            ),
        },
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_bytes": limits.max_bytes,
        "max_age": int(limits.max_age * _SECOND),
        "max_msg_size": limits.max_message,
        "num_replicas": limits.replicas,
        "duplicate_window": int(limits.dedup_window * _SECOND),
        "allow_direct": True,
        "allow_msg_ttl": True,
        "max_consumers": -1,
    }


def dead_config(limits: DeadLimits) -> dict[str, Any]:
    """Dead letters, each on a subject of its own that takes one message and no second.

    That is what makes the hand-over exact: a repeat is refused, however late it comes.
    """
    return {
        "name": DEAD,
        "subjects": ["dead.*.*.*"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "discard_new_per_subject": True,
        "max_msgs_per_subject": 1,
        "max_bytes": limits.max_bytes,
        "max_age": int(limits.max_age * _SECOND),
        "num_replicas": limits.replicas,
        "allow_direct": True,
    }


def schedules_config(limits: ScheduleLimits, journal: JournalLimits) -> dict[str, Any]:
    """Commands that wait for their time; each stays until the journal has it."""
    return {
        "name": SCHEDULES,
        "subjects": ["schedule.*.*.*"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_bytes": limits.max_bytes,
        # Less than the journal's, so that it will take what was taken here.
        "max_msg_size": max(journal.max_message - 1024, journal.max_message // 2),
        "num_replicas": limits.replicas,
        "duplicate_window": int(journal.dedup_window * _SECOND),
        "allow_direct": True,
        "allow_msg_ttl": True,
    }


def timers_config(limits: ScheduleLimits) -> dict[str, Any]:
    """One timer for each schedule, which nats-server turns into a message of `due.` (ADR-51).

    A stream with timers can't refuse when it is full, it forgets: so it has no limit of its own,
    and holds no bodies. What is due goes when it has been seen to.
    """
    return {
        "name": TIMERS,
        "subjects": ["timer.*.*.*", "due.*.*.*"],
        "storage": "file",
        "retention": "workqueue",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_bytes": -1,
        "num_replicas": limits.replicas,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_msg_schedules": True,
    }


def audit_config(limits: AuditLimits) -> dict[str, Any]:
    """Refusals that look like attacks. One that goes on and on pushes out only its own kind."""
    return {
        "name": AUDIT,
        "subjects": ["audit.*.*"],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 10_000,
        "max_msg_size": 4096,
        "max_bytes": limits.max_bytes,
        "max_age": int(limits.max_age * _SECOND),
        "num_replicas": limits.replicas,
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": True,
    }


def bucket_config(name: str, *, history: int = 1, replicas: int = 1) -> dict[str, Any]:
    """The stream behind a bucket, as ADR-8 lays it out."""
    return {
        "name": f"KV_{name}",
        "subjects": [f"$KV.{name}.>"],
        "max_msgs_per_subject": history,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        "allow_msg_ttl": name in EXPIRING,
        "num_replicas": replicas,
    }
