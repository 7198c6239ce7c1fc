"""Replays and recoveries."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from tenantry.messages.base import Message, Name, TenantId

ReplayState = Literal["asked", "running", "ready", "done", "failed", "cancelled"]

UNDER_WAY: frozenset[ReplayState] = frozenset({"asked", "running", "ready"})
"""The states of a replay that has not ended."""


class Replay(Message, frozen=True, kw_only=True):
    """A replay (KV bucket `replays`, key: `<service>.<tenant>`, the last one of each).

    One key takes one replay at a time: a new one is written over an ended one only. A recovery
    is a replay into a namespace of its own, and `ready` when that waits to become the live one.
    """

    id: str
    tenant: TenantId
    service: Name
    by: str = ""
    """Who asked for it."""
    asked: float
    began: float | None = None
    ended: float | None = None
    state: ReplayState = "asked"
    since: int = 0
    """First sequence of the journal that is replayed."""
    until: int = 0
    """First sequence that is not; 0 for where the tenant stands at the end."""
    end: int = 0
    """The same, as it was found when the replay began."""
    actions: tuple[str, ...] = ()
    """Only these (`<service>.<action>`); empty for all that the service declares replayable."""
    skip: tuple[int, ...] = ()
    """Sequences to leave out."""
    rate: Annotated[float, Meta(ge=0)] = 0.0
    """Messages per second at most; 0 for no limit."""
    reset: bool = False
    """Whether the service's reset hook clears the tenant's state first."""
    generation: int | None = None
    """For a recovery, the namespace of the state that it fills."""
    swap: bool = False
    """A recovery: somebody has confirmed that what was filled becomes the live state."""
    cancel: bool = False
    """Somebody has asked to stop it."""
    next: int = 0
    """How far it has come: the next sequence to look at."""
    handled: int = 0
    passed: int = 0
    """Messages left out: not asked for, or by an action that is not replayable."""
    suppressed: int = 0
    """What handlers emitted, sent or asked for that was held back."""
    failed: int = 0
    failures: tuple[int, ...] = ()
    """Sequences of the first messages whose handler failed; they were left out."""
    error: str = ""
    """Why it ended, where it did not end well."""
