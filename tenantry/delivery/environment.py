"""The parts of a worker that every partition of a service needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tenantry.bus import Bus, Table
from tenantry.bus.jetstream import Delivery
from tenantry.context.context import Context
from tenantry.context.fence import Fence
from tenantry.delivery.checkpoints import Checkpoints
from tenantry.delivery.dead_letters import DeadLetters, Incoming
from tenantry.delivery.leases import Leases
from tenantry.delivery.settlement import Result
from tenantry.delivery.suspects import Suspects
from tenantry.messages import Cursor, Replay, Suspension
from tenantry.rows import Rows
from tenantry.service.handler import Handler
from tenantry.service.service import Service


class Item(NamedTuple):
    """A message of the journal, with what JetStream says of it."""

    message: Incoming
    delivery: Delivery


class Attempts(Protocol):
    """Runs handlers."""

    async def run(
        self, handler: Handler, message: Incoming, delivery: Delivery, fence: Fence
    ) -> Result:
        """Try a message once, when there is a slot for it.

        Raises only CancelledError.
        """
        ...

    def abandon(self, fence: Fence) -> None:
        """Leave a handler to itself that ignores its end: nothing that it does counts any more."""
        ...

    async def reset(
        self, tenant: str, hook: Callable[[Context], Awaitable[None]], fence: Fence
    ) -> None:
        """Run a service's reset hook; raises :class:`Rejection` where it fails."""
        ...

    async def finish(self, tenant: str, cursor: Cursor, *, first: int) -> None:
        """Finish what a former owner has committed of a tenant's messages from `first` on."""
        ...

    async def settled_up_to(self, tenant: str, cursor: Cursor, *, first: int, since: float) -> int:
        """Finish what a former owner has committed, and say how far the tenant has come.

        Messages of the tenant up to the sequence that is returned are settled. `first` is the
        first that may not be, `since` when the former owner may have begun it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The parts that the partitions of one service in one worker share."""

    bus: Bus
    service: Service
    attempts: Attempts
    cursors: Rows[Cursor]
    replays: Rows[Replay | None]
    suspended: Table[Suspension]
    checkpoints: Checkpoints
    leases: Leases
    letters: DeadLetters
    suspects: Suspects
