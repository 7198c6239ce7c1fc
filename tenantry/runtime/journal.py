"""The journal: the stream that holds every admitted command and event, and the lanes over it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tenantry import subjects
from tenantry.service.handler import Handler

STREAM = "JOURNAL"
GROUP = "lane"

ACK_WAIT = 4.0
"""A message whose worker says nothing for so long is delivered anew, seconds."""

PIN_TIMEOUT = 8.0
"""A lane whose worker pulls nothing for so long goes to another, seconds.

A dead worker's last pull is at most `pull.EXPIRES` old when it dies: the pin outlives it by more
than ACK_WAIT, so that the heir gets its unfinished messages before any later one.
"""

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


def stream_config(limits: JournalLimits) -> dict[str, Any]:
    """The stream. Its transform sorts by NATS's own partition of the tenant.

    `discard: new` makes a full journal refuse instead of forgetting the oldest message.
    """
    return {
        "name": STREAM,
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


def lane_name(service: str, lane: int) -> str:
    """The durable consumer of one lane."""
    return f"{service}-{lane}"


def lane_config(
    service: str, version: str, lane: int, lanes: int, handlers: Iterable[Handler]
) -> dict[str, Any]:
    """The consumer of one lane: some partitions, and in them what the service handles.

    A lane that is new reads the journal from its start: a service that follows events builds its
    state from all of them.
    """
    names = sorted((handler.service, handler.action) for handler in handlers)
    return {
        "name": lane_name(service, lane),
        "durable_name": lane_name(service, lane),
        "description": f"{service}, lane {lane} of {lanes}",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT * _SECOND),
        "max_deliver": -1,
        # What a blocked tenant has been given back counts too: any limit would stop its neighbours.
        "max_ack_pending": -1,
        "filter_subjects": [
            subjects.stored(partition, *name)
            for partition in range(lane, subjects.PARTITIONS, lanes)
            for name in names
        ],
        "priority_groups": [GROUP],
        "priority_policy": "pinned_client",
        "priority_timeout": int(PIN_TIMEOUT * _SECOND),
        "metadata": {"tenantry.version": version, "tenantry.lanes": str(lanes)},
    }
