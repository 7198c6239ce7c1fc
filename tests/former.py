"""What the version before left behind, made by hand: its consumers on the journal, its cursors."""

from __future__ import annotations

from typing import Any

from tenantry import subjects

SECOND = 1_000_000_000


def consumer_config(
    service: str,
    partition: int,
    *names: tuple[str, str],
    unordered: str = "",
    mark: int = 0,
    pin: float = 8.0,
) -> dict[str, Any]:
    """The consumer of one partition, for these pairs of service and action.

    `unordered` are names as `<service>.<action>`, with blanks between; `pin` is how long a silent
    reader keeps the consumer to itself, seconds.
    """
    name = f"{service}-{partition}"
    return {
        "name": name,
        "durable_name": name,
        "description": f"{service}, partition {partition}",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": 4 * SECOND,
        "max_deliver": -1,
        "max_ack_pending": -1,
        "filter_subjects": [
            subjects.stored(partition, *each) for each in (*sorted(names), (service, "_knock"))
        ],
        "priority_groups": ["lane"],
        "priority_policy": "pinned_client",
        "priority_timeout": int(pin * SECOND),
        "metadata": {
            "tenantry.version": "1.2.3",
            "tenantry.unordered": unordered,
            "tenantry.mark": str(mark),
        },
    }
