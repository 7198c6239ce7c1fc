"""One tenant in a service: its queues, its tag, its place in the order."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from tenantry.fairness.ticket import Ticket

_PACE = 0.1


class Tenant:
    """What one tenant has here."""

    __slots__ = (
        "base",
        "entry",
        "epoch",
        "load",
        "mean",
        "most",
        "name",
        "pace",
        "parked",
        "requests",
        "running",
        "served",
        "starts",
        "stored",
        "stored_last",
        "weight",
    )

    def __init__(self) -> None:
        self.name = ""
        self.weight = 1
        self.most = 0
        self.requests: deque[Ticket] = deque()
        self.stored: deque[Ticket] = deque()
        self.stored_last = True
        self.running = 0
        self.load = 0.0
        """What its running messages are expected to take, …"""
        self.starts = 0.0
        """… and the sum of the times when they began."""
        self.mean = 0.0
        """What its own messages take on average; 0 where none has ended."""
        self.base = 0.0
        """The tag without what runs."""
        self.epoch = -1
        self.entry: Place | None = None
        """Its place in the order, while it may get the next slot."""
        self.parked = False
        self.pace = 0.0
        """Seconds between two of its messages that had to wait, on average lately."""
        self.served = 0.0

    @property
    def waits(self) -> bool:
        """Whether something of it has no slot yet."""
        return bool(self.requests or self.stored)

    def tag(self, now: float) -> float:
        """The work caused up to `now`, over the weight: what runs counts as it runs."""
        return self.base + max(self.load, self.running * now - self.starts) / self.weight

    def key(self, now: float, *, fresh: bool = False) -> float:
        """What the order goes by: the tag as it will be once one more message has run.

        For one that has not waited before (`fresh`) it is the tag as it is.
        """
        return self.tag(now) if fresh else self.tag(now) + self.mean / self.weight

    def ended(self, ticket: Ticket, took: float) -> None:
        """A message has left its slot after so many seconds."""
        self.running -= 1
        if self.running:
            self.load -= ticket.cost
            self.starts -= ticket.began
        else:
            self.load = self.starts = 0.0
        self.base += took / self.weight
        if took:
            self.mean = self.mean + _PACE * (took - self.mean) if self.mean else took

    def paced(self, now: float, entered: float) -> None:
        """Note that a message begins that has waited since `entered`."""
        gap = now - max(self.served, entered)
        self.pace = self.pace + _PACE * (gap - self.pace) if self.pace else gap
        self.served = now


class Place(NamedTuple):
    """One in the order of who is next; no bare tuple, since compiled code unboxes those."""

    key: float
    again: bool
    """Whether the tenant has waited before."""
    number: int
    """No two have the same, so that tenants are never compared."""
    tenant: Tenant


class Held(NamedTuple):
    """How many messages of a tenant run, and how many wait."""

    running: int
    waiting: int
