"""The checkpoints of a service, as the bucket keeps them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import NamedTuple

from tenantry.bus import Bucket, Bus
from tenantry.errors import Conflict, DeadlineExceeded, Unavailable
from tenantry.messages.checkpoints import Checkpoint

BUCKET = "checkpoints"
_LOOKS = 5
"""How often a checkpoint from before our claim is taken for that of a replica that lags."""

LEFT = "left"
"""Stands for the owner of a partition that was left while something of it was cut off.

Nobody waits for it, and what it has begun may still be committed.
"""


class Found(NamedTuple):
    """A checkpoint as it lies there."""

    record: Checkpoint
    revision: int
    at: float
    """When it was written, seconds since the epoch by the server's clock; 0 where there is none."""
    size: int = 0


@dataclass(slots=True)
class Last:
    """The last checkpoint of an owner."""

    record: Checkpoint
    revision: int
    unsure: list[Checkpoint] = field(default_factory=list)
    """Later ones of which nobody has said whether they are stored."""


class Taken(Exception):
    """Another owner has written the checkpoint."""


class Erased(Exception):
    """Somebody has taken names out of `open`, and left the rest as it was."""

    def __init__(self, names: set[str], revision: int) -> None:
        super().__init__()
        self.names = names
        self.revision = revision


class Checkpoints:
    """Reads and writes the checkpoints of one service."""

    def __init__(self, bus: Bus, service: str) -> None:
        self._service = service
        self._bucket: Bucket[Checkpoint] = Bucket(bus, BUCKET, Checkpoint)

    async def read(self, partition: int) -> Found:
        """The checkpoint of a partition, an empty one where there is none."""
        record = await self._bucket.read(f"{self._service}.{partition}")
        if record is None:
            return Found(Checkpoint(), 0, 0.0)
        if record.deleted:
            return Found(Checkpoint(), record.revision, 0.0)
        at = dt.datetime.fromisoformat(record.headers["Nats-Time-Stamp"]).timestamp()
        return Found(self._bucket.decode(record.body), record.revision, at, len(record.body))

    async def claim(self, partition: int, record: Checkpoint, revision: int) -> int | None:
        """Write it over exactly `revision`; None where another was quicker."""
        try:
            return await self._bucket.update(f"{self._service}.{partition}", record, revision)
        except Conflict:
            return None

    async def save(self, partition: int, record: Checkpoint, last: Last) -> int:
        """Write it as the owner, over what this owner has written last.

        Raises :class:`Taken` for another owner's, :class:`Erased` where an erasure has changed
        ours, and what NATS raises: then it may be there or not, and is to be written again.
        """
        try:
            return await self._bucket.update(f"{self._service}.{partition}", record, last.revision)
        except (Conflict, Unavailable, DeadlineExceeded):
            there, owner = await self.read(partition), last.record.owner
            if there.record.epoch < record.epoch and len(last.unsure) < _LOOKS:
                last.unsure.append(record)  # a replica that lags: it does not know our claim yet
                raise Unavailable("the checkpoint is not stored yet") from None
            if there.record.epoch != record.epoch or there.record.owner not in (owner, "", LEFT):
                raise Taken from None
            if there.record == record:
                return there.revision  # it was stored, and the answer got lost
            if there.revision > last.revision and there.record not in last.unsure:
                gone = last.record.open.keys() - there.record.open.keys()
                raise Erased(set(gone), there.revision) from None
            # An older one, where a server that was restored has lost the last ones.
            last.revision = there.revision
            last.unsure.append(record)
            raise Unavailable("the checkpoint is not stored yet") from None
