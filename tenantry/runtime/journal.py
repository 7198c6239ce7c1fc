"""The lanes over the journal: one durable consumer for each service and partition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tenantry import subjects
from tenantry.service.handler import Handler

GROUP = "lane"

ACK_WAIT = 4.0
"""A message whose worker says nothing for so long is delivered anew, seconds."""

PIN_TIMEOUT = 8.0
"""A lane whose worker pulls nothing for so long goes to another, seconds.

A dead worker's last pull is at most `pull.EXPIRES` old when it dies: the pin outlives it by more
than ACK_WAIT, so that the heir gets its unfinished messages before any later one.
"""

_SECOND = 1_000_000_000

_SECOND = 1_000_000_000


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
