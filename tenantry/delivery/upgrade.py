"""The consumers by which the version before read the journal, and whether one still has to go.

That version had a durable consumer `<service>-<partition>` with pins and acknowledgements, and a
reader `<service>-read-<partition>` for replays. The tenants worker turns each into a checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tenantry import subjects
from tenantry.bus import Bus, api
from tenantry.bus.jetstream import CONSUMER_NOT_FOUND
from tenantry.delivery.checkpoints import Checkpoints
from tenantry.errors import JetStreamError
from tenantry.streams import JOURNAL

_NAME = re.compile(r"([a-z][a-z0-9_]*)-(\d{1,2})", re.ASCII)
_KNOCK = "_knock"
"""The action of the empty messages by which that version woke a consumer."""


class Former(NamedTuple):
    """A consumer of the version before, as the server describes it."""

    service: str
    partition: int
    version: str
    """The newest version of the service that has set it up."""
    names: tuple[str, ...]
    """Actions that it delivers, as `<service>.<action>`."""
    unordered: dict[str, int]
    """The unordered actions; each is unordered in what comes after this sequence."""
    settled: int
    """Every message up to this sequence is acknowledged."""
    read: bool
    """True if a worker still reads by it, or may believe so."""

    @property
    def name(self) -> str:
        """The consumer's own name."""
        return f"{self.service}-{self.partition}"

    @property
    def reader(self) -> str:
        """The name of the consumer that read for replays."""
        return f"{self.service}-read-{self.partition}"


def former(info: Mapping[str, Any]) -> Former | None:
    """Read the server's description of a consumer; None for one that has another purpose.

    It must have several filters. The credentials of a service create a consumer with a single one
    only, so no service can forge what another would go on from.
    """
    config = info["config"]
    match = _NAME.fullmatch(config.get("durable_name", ""))
    filters = config.get("filter_subjects") or []
    if match is None or len(filters) < 2:
        return None
    service, partition = match[1], int(match[2])
    if subjects.stored(partition, service, _KNOCK) not in filters:
        return None
    names = sorted(subject.split(".", 3)[3] for subject in filters)
    metadata = config.get("metadata") or {}
    mark = int(metadata.get("tenantry.mark", "0"))
    floor, delivered = info["ack_floor"]["stream_seq"], info["delivered"]["stream_seq"]
    groups = info.get("priority_groups") or []
    return Former(
        service,
        partition,
        metadata.get("tenantry.version", "0.0.0"),
        tuple(name for name in names if not name.endswith(f".{_KNOCK}")),
        dict.fromkeys(sorted(metadata.get("tenantry.unordered", "").split()), mark),
        floor if info["num_ack_pending"] else max(floor, delivered),
        bool(info["num_waiting"]) or any(each.get("pinned_client_id") for each in groups),
    )


async def pending(bus: Bus, service: str, partition: int) -> bool:
    """Tell whether a partition still has to be taken over from the version before.

    Then nobody may claim it, or the service would begin with the oldest message. When the answer is
    False, a checkpoint may have been written meanwhile: claim the partition by compare-and-set.
    Raises :class:`JetStreamError` and what NATS raises.
    """
    try:
        info = await api(bus, f"CONSUMER.INFO.{JOURNAL}.{service}-{partition}")
    except JetStreamError as error:
        if error.err_code == CONSUMER_NOT_FOUND:
            return False
        raise
    if former(info) is None:
        return False
    return not (await Checkpoints(bus, service).read(partition)).revision
