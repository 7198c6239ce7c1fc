"""One subscription, which outlives the connections it is laid on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import structlog
from nats.aio.subscription import Subscription as NatsSubscription

from tenantry.bus.client import NatsClient
from tenantry.bus.message import Message

Callback = Callable[[Message], Awaitable[None]]
Listener = Callable[[Message], None]

log = structlog.get_logger("tenantry.bus")


class Owner(Protocol):
    """What a subscription needs of the bus that lays it."""

    @property
    def inbox(self) -> str:
        """The prefix of what answers come to, on the connection of now."""
        ...

    def forget(self, subscription: Subscription) -> None:
        """Do not lay it again."""
        ...

    async def unless_lost(self, work: Coroutine[Any, Any, object]) -> None:
        """Do this, or leave it when the connection is lost."""
        ...


class Subscription:
    """Made by :meth:`tenantry.bus.Bus.subscribe` and :meth:`tenantry.bus.Bus.listen`."""

    def __init__(
        self,
        bus: Owner,
        subject: str,
        queue: str,
        callback: Callback | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._subject = subject
        self._of_inbox = subject.startswith(f"{bus.inbox}.")
        """Whether it moves with the inbox, which other credentials may change."""
        if self._of_inbox:
            self._subject = subject.removeprefix(bus.inbox)
        self.queue = queue
        self._bus = bus
        self._callback = callback
        self._listener = listener
        self._laid: dict[NatsClient, NatsSubscription | None] = {}
        """Where it is laid, None where it is being laid: on two while credentials are renewed."""
        self._stopped = False

    @property
    def subject(self) -> str:
        """What is subscribed to."""
        return f"{self._bus.inbox}{self._subject}" if self._of_inbox else self._subject

    async def lay(self, client: NatsClient) -> None:
        """Subscribe on this client, unless it is laid there or was stopped meanwhile."""
        if self._stopped or client in self._laid:
            return
        self._laid = {other: laid for other, laid in self._laid.items() if not other.is_closed}
        self._laid[client] = None
        subject = f"{client.inbox}{self._subject}" if self._of_inbox else self._subject
        if self._listener is not None:
            laid = await client.listen(subject, self.queue, self._heard)
        else:
            laid = await client.subscribe(subject, queue=self.queue, cb=self._guarded)  # type: ignore[arg-type]
        if self._stopped:
            await laid.unsubscribe()
        else:
            self._laid[client] = laid

    def _heard(self, message: Message) -> None:
        """What a listener raises must not end the reading of everybody else's messages."""
        try:
            self._listener(message)  # type: ignore[misc]
        except Exception:
            log.exception("callback failed", subject=self.subject)

    async def _guarded(self, message: Message) -> None:
        """nats-py ends a subscription silently when its callback raises CancelledError."""
        try:
            await self._callback(message)  # type: ignore[misc]
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            log.error("callback cancelled itself", subject=self.subject)
        except Exception:
            log.exception("callback failed", subject=self.subject)

    async def stop(self) -> None:
        """Receive no more, but first handle what has already come."""
        self._stopped = True
        self._bus.forget(self)
        laid, self._laid = self._laid, {}
        for subscription in laid.values():
            if subscription is not None:
                await self._bus.unless_lost(subscription.drain())  # type: ignore[no-untyped-call]
