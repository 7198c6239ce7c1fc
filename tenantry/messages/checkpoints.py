"""How far a service has come in the journal, and which of its instances owns a partition."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from tenantry.messages.base import Message, Name

Why = Literal["", "failed", "backlog", "replay"]


class Open(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A tenant's row in a checkpoint: it has unsettled messages at or below its position."""

    next: int
    """Its first message that is not settled."""
    why: Why = ""
    """Why it is sidelined: read by a reader of its own, from `next` on; empty where it is not."""
    failed: int = 0
    """How often message `next` has failed."""
    first_failed: float = 0.0
    """When it failed first, seconds since the epoch."""
    retry_at: float = 0.0
    """When it is tried again, seconds since the epoch; 0 for at once."""
    code: str = ""
    """The code of the rejection that it failed with last."""


class Checkpoint(Message, frozen=True, kw_only=True, omit_defaults=True):
    """How far a service has settled one partition (KV bucket `checkpoints`, key `<service>.<p>`).

    Every message of the partition up to `read_to` is settled, but for those of a tenant in `open`
    from its `next` on. The owner writes it by compare-and-set; a new owner raises `epoch`.
    """

    epoch: int = 0
    """Counts the owners."""
    owner: str = ""
    """The lease of the owner; empty when it released it with nothing running, `left` when it had to
    cut something off."""
    version: str = "0.0.0"
    """The newest version of the service that has owned the partition."""
    names: tuple[str, ...] = ()
    """Actions that the service handles, or once handled, as `<service>.<action>`."""
    unordered: dict[str, int] = field(default_factory=dict)
    """The unordered actions; each is unordered in what comes after this sequence."""
    read_to: int = 0
    open: dict[str, Open] = field(default_factory=dict)
    """By tenant; `<tenant>#<seq>` for an unordered message, `<tenant>#` for many of them."""
    begun: dict[int, int] = field(default_factory=dict)
    """By sequence, how often a message was begun without an end that anybody has seen."""
    age: float = 0.0
    """How long the oldest message that runs had been running, seconds."""
    unclean_to: int = 0
    """The last sequence that an owner may have begun that never released the partition."""
    since: float = 0.0
    """When such an owner may have begun the first of them, seconds since the epoch."""


class Lease(Message, frozen=True, kw_only=True):
    """An instance that may own partitions (KV bucket `leases`, key `<service>.<lease>`).

    It is alive as long as the key exists: whoever takes over its partitions deletes it first.
    """

    service: Name
    version: str
    renewed: int
    """Counts the renewals."""
