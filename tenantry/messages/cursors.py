"""Where a tenant stands in a service."""

from __future__ import annotations

from tenantry.messages.base import Message


class Cursor(Message, frozen=True, kw_only=True):
    """Where one tenant stands in one service (KV bucket `cursors`, key: `<service>.<tenant>`).

    Only tenants have one that do not simply go with the lane: one whose message failed and is
    tried again, one that is or was replayed or recovered.
    """

    next: int = 0
    """All of its messages below this sequence of the journal are done with."""
    since: int = 0
    """Those from here to `next` were read apart: what the lane brings of them is done."""
    behind: bool = False
    """Whether it is read apart, from `next` on; the lane passes its messages over meanwhile."""
    failed: int = 0
    """How often message `next` has failed."""
    first_failed: float = 0.0
    retry_at: float = 0.0
    code: str = ""
    """Why it failed last."""
    epoch: int = 0
    """How often the tenant was set back: what an earlier epoch still writes is refused."""
    generation: int = 0
    """Which namespace of its state is live."""
    former: int | None = None
    """The namespace that was live before the last recovery, if it can be gone back to."""
