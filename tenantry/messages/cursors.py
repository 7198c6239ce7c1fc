"""Which state of a tenant is live in a service."""

from __future__ import annotations

from tenantry.messages.base import Message


class Cursor(Message, frozen=True, kw_only=True):
    """Which namespace of a tenant's state is live (KV bucket `cursors`, key `<service>.<tenant>`).

    It also counts how often the tenant was set back. Only tenants that were replayed or recovered
    have one.
    """

    epoch: int = 0
    """How often the tenant was set back: what an earlier epoch still writes is refused."""
    generation: int = 0
    """Which namespace of its state is live."""
    former: int | None = None
    """The namespace that was live before the last recovery, if it can be gone back to."""
