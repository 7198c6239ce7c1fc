"""One message that wants a slot of a service."""

from __future__ import annotations

import math
from typing import Any, Literal

State = Literal["new", "waiting", "running", "over"]


class Ticket:
    """A message from when it came until it has left its slot."""

    __slots__ = (
        "action",
        "began",
        "concurrency",
        "cost",
        "entered",
        "expires",
        "item",
        "state",
        "stored",
        "tenant",
        "weight",
    )

    def __init__(
        self,
        tenant: str,
        action: str,
        item: Any = None,
        *,
        weight: int = 1,
        concurrency: int = 0,
        stored: bool = False,
        expires: float = math.inf,
    ) -> None:
        self.tenant = tenant
        self.action = action
        self.item = item
        """What the caller wants back with it."""
        self.weight = weight
        self.concurrency = concurrency
        """How many of its tenant may run at once; 0 for no bound of its own."""
        self.stored = stored
        """Whether the journal has it: then it is never refused, it may wait."""
        self.expires = expires
        self.entered = 0.0
        self.began = 0.0
        self.cost = 0.0
        """What it is expected to take, seconds."""
        self.state: State = "new"
