"""What the simulated world is made of: its journal, and what an owner has in hand."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from tenantry.delivery.lane import Begun, Lane, Queue
from tenantry.messages.checkpoints import Checkpoint


class Entry(NamedTuple):
    """A message of the journal; without a tenant it is not for the service."""

    seq: int
    tenant: str
    ordered: bool


@dataclass(slots=True)
class Reader:
    """A sidelined queue's own reader."""

    at: int
    asked: tuple[int, bool, int] | None = None
    """Up to where the leader was asked, whether it had something, and when it answers."""


@dataclass
class Shell:
    """A lane, and what its owner has in hand."""

    number: int
    lane: Lane[int]
    at: int
    """Where the lane's reader is."""
    rows: int
    """How many rows the checkpoint had that it began with."""
    serving: list[Queue[int]] = field(default_factory=list)
    running: dict[Queue[int], Begun[int]] = field(default_factory=dict)
    counted: set[int] = field(default_factory=set)
    """Which of those that run have a beginning that is written down."""
    readers: dict[Queue[int], Reader] = field(default_factory=dict)
    replays: dict[str, int] = field(default_factory=dict)
    """Until which step a queue waits for a replay."""
    pending: Checkpoint | None = None
    """A snapshot that is being written."""
    erased: set[str] = field(default_factory=set)
    """Rows that an erasure has taken out of the checkpoint, and of which it has not heard."""
    settled: set[int] = field(default_factory=set)
    """What this lane has settled."""
    begun: int = 0
    """Begun since the last durable snapshot was taken."""
    begun_since: int = 0

    @property
    def idle(self) -> bool:
        lane = self.lane
        busy = self.serving or self.running or self.pending or lane.queues
        return not (busy or lane.dirty or lane.urgent)


def covers(record: Checkpoint, entry: Entry) -> bool:
    """Whether the checkpoint says that a message may be unsettled."""
    if entry.seq > record.read_to:
        return True
    if entry.ordered:
        row = record.open.get(entry.tenant)
        return row is not None and entry.seq >= row.next
    if f"{entry.tenant}#{entry.seq}" in record.open:
        return True
    row = record.open.get(f"{entry.tenant}#")
    return row is not None and entry.seq >= row.next


def write_journal(draw: random.Random) -> tuple[list[Entry], list[Entry]]:
    """Two partitions of one stream."""
    count, tenants = draw.randrange(4, 120), draw.choice([1, 3, 8])
    unordered = draw.choice([0.0, 0.3, 0.9])
    parts: tuple[list[Entry], list[Entry]] = ([], [])
    for seq in sorted(draw.sample(range(1, count * 3), count)):
        number = draw.randrange(2)
        tenant = f"t{draw.randrange(tenants)}-{number}" if draw.random() < 0.8 else ""
        parts[number].append(Entry(seq, tenant, draw.random() >= unordered))
    return parts
