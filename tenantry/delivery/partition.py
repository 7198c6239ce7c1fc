"""The owner of a partition as catch-up and replay see it."""

from __future__ import annotations

from typing import Protocol

from tenantry.bus import Message
from tenantry.delivery.environment import Environment, Item
from tenantry.delivery.filters import Names
from tenantry.delivery.hold import Hold
from tenantry.delivery.lane import Lane, Queue


class Partition(Protocol):
    """A partition in this worker's hands."""

    env: Environment
    number: int
    lane: Lane[Item]
    hold: Hold
    names: Names

    def queue_of(self, message: Message, seq: int) -> str:
        """The queue that a message belongs to; empty for one that is not for this service."""
        ...

    def pump(self) -> None:
        """Run what the lane lets begin."""
        ...

    def look(self, queue: Queue[Item]) -> None:
        """See to it that a sidelined queue is read by a reader of its own."""
        ...

    async def save(self) -> bool:
        """Write the checkpoint as it is now; False where the partition is lost."""
        ...

    def holds_back(self, tenant: str) -> bool:
        """Tell whether a replay is at work here for which a tenant's live messages wait."""
        ...
