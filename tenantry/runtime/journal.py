"""The lanes over the journal: one durable consumer for each service and partition."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.wire import headers

GROUP = "lane"

ACK_WAIT = 4.0
"""A message whose worker says nothing for so long is delivered anew, seconds."""

PIN_TIMEOUT = 8.0
"""A lane whose worker pulls nothing for so long goes to another, seconds.

A dead worker's last pull is at most `pull.EXPIRES` old when it dies: the pin outlives it by more
than ACK_WAIT, so that the heir gets its unfinished messages before any later one.
"""

HOLD = PIN_TIMEOUT - 1.0
"""For so long after a pull that the server has noticed the lane is certainly ours, seconds."""

_KNOCK = "_knock"
_UNORDERED, _MARK = "tenantry.unordered", "tenantry.mark"
_SECOND = 1_000_000_000


def lane_name(service: str, partition: int) -> str:
    """The durable consumer of one lane."""
    return f"{service}-{partition}"


def reader_name(service: str, partition: int) -> str:
    """The consumer that reads a tenant's past for whoever has the lane."""
    return f"{service}-read-{partition}"


class Unordered(NamedTuple):
    """Which actions no order binds, and since when, as a lane's consumer remembers it.

    A message up to `mark` may have been passed over as one of a tenant apart, by a version that
    still declared its action ordered: so it goes in order still.
    """

    names: frozenset[str] = frozenset()
    mark: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Unordered:
        """Read it from a consumer's configuration."""
        metadata = config.get("metadata") or {}
        names = metadata.get(_UNORDERED, "").split()
        return cls(frozenset(names), int(metadata.get(_MARK, "0")))

    def metadata(self) -> dict[str, str]:
        """As the consumer keeps it."""
        return {_UNORDERED: " ".join(sorted(self.names)), _MARK: str(self.mark)}


def lane_config(
    service: str,
    version: str,
    partition: int,
    names: Iterable[tuple[str, str]],
    unordered: Unordered | None = None,
) -> dict[str, Any]:
    """The consumer of one lane: one partition, and in it the `(service, action)` of `names`.

    A lane that is new reads the journal from its start: a service that follows events builds its
    state from all of them.
    """
    return {
        "name": lane_name(service, partition),
        "durable_name": lane_name(service, partition),
        "description": f"{service}, partition {partition}",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT * _SECOND),
        "max_deliver": -1,
        # Any limit would let what is delayed or slow stop its neighbours.
        "max_ack_pending": -1,
        "filter_subjects": [
            subjects.stored(partition, *name) for name in (*sorted(names), (service, _KNOCK))
        ],
        "priority_groups": [GROUP],
        "priority_policy": "pinned_client",
        "priority_timeout": int(PIN_TIMEOUT * _SECOND),
        "metadata": {"tenantry.version": version, **(unordered or Unordered()).metadata()},
    }


def names_of(config: Mapping[str, Any]) -> frozenset[str]:
    """What a lane's consumer delivers, as `<service>.<action>`."""
    filters = config.get("filter_subjects") or [config.get("filter_subject", "")]
    names = (subject.split(".", 3)[-1] for subject in filters)
    return frozenset(name for name in names if not name.endswith(_KNOCK))


async def knock(bus: Bus, service: str, partition: int) -> None:
    """Send a lane a message that says nothing: the server pins a reader only with a message.

    It is of no tenant (no id begins with an underscore), and gone after a second.
    """
    await js.store(
        bus,
        f"tenant.{_nobody(partition)}.{service}.{_KNOCK}",
        b"",
        headers={headers.TTL: "1s"},
    )


@functools.cache
def _nobody(partition: int) -> str:
    """A name that is no tenant's and lies in this partition."""
    names = (f"_{number}" for number in itertools.count())
    return next(name for name in names if subjects.partition(name) == partition)
