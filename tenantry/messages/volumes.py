"""What the journal holds of a tenant, in bytes."""

from __future__ import annotations

from msgspec import field

from tenantry.messages.base import Message, Seconds


class Volume(Message, frozen=True, kw_only=True):
    """The journal's bytes of one tenant (KV bucket `volumes`, key: the tenant's id).

    Only kept of tenants whose plan bounds them.
    """

    seq: int = 0
    """All up to this sequence of the journal is counted."""
    parts: dict[int, int] = field(default_factory=dict)
    """Bytes, by when the last of them is gone (seconds since the epoch); 0 for never."""
    ever: int = 0
    """All bytes that were counted so far, also those that are gone."""
    told: str = ""
    """The last event about it: empty, `warned` or `exhausted`."""


class VolumeProgress(Message, frozen=True, kw_only=True):
    """How far the journal is counted (KV bucket `volumes`, key `journal.progress`)."""

    seq: int = 0
    at: Seconds = 0.0
    """All that was stored until then is counted."""
    seen: Seconds = 0.0
    """When this was written."""
    owner: str = ""
    """The instance that counts; another one begins when it has said nothing for a while."""
