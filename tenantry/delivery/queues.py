"""The queues of a partition: the messages of one tenant, which run one after another."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from tenantry.messages.checkpoints import Open

T = TypeVar("T")

SIDE_MAX = 64
"""Messages of one sidelined queue in memory."""


@dataclass(slots=True, eq=False)
class Queue(Generic[T]):
    """The messages of one tenant, or one unordered message."""

    name: str
    waiting: deque[tuple[int, T]] = field(default_factory=deque)
    running: int = 0
    """The sequence of the message that runs, or 0."""
    served: bool = False
    """True if somebody runs its messages: :meth:`Lane.begin` says when to stop."""
    side: Open | None = None
    """Its row of the checkpoint while it is sidelined."""
    passed: int = 0
    """The last sequence that was passed over."""
    settled: int = 0
    """Messages settled since the last look at the backlog."""

    @property
    def tenant(self) -> str:
        """The tenant that its messages belong to."""
        return self.name.partition("#")[0]

    @property
    def single(self) -> int:
        """The sequence of the one unordered message that this is for, or 0."""
        return int(self.name.partition("#")[2] or 0)

    @property
    def pauses(self) -> bool:
        """Tell whether it is sidelined and waits for a retry, or for the end of a replay."""
        side = self.side
        return side is not None and (side.retry_at > 0 or side.why == "replay")

    def backlog(self) -> int:
        """How many of its messages take up room in the lane."""
        return len(self.waiting) if self.side is None else 0

    def row(self) -> Open | None:
        """Return its row of the checkpoint; None if nothing of it is unsettled."""
        side, running = self.side, self.running
        if side is not None:
            if running and running < side.next:
                return Open(next=running, why=side.why)
            return side
        if running:
            return Open(next=running)
        return Open(next=self.waiting[0][0]) if self.waiting else None


class Begun(NamedTuple, Generic[T]):
    """A message that may run now."""

    seq: int
    message: T
    failed: int
    """How often it has failed before."""
    lost: int
    """How often it was begun before and nobody saw its end."""
