"""An event for each dead letter, so that somebody hears of it: `tenants.message_dead`."""

from __future__ import annotations

import structlog

from tenantry.bus import Bus, Message, Table
from tenantry.bus.jetstream import Delivery
from tenantry.errors import BadMessage
from tenantry.messages import MessageDead, Tenant
from tenantry.streams import DEAD
from tenantry.wire import headers, letter, trace
from tenantry_workers.tenants.outbox import DurableOutbox
from tenantry_workers.tenants.publisher import EventPublisher, event_name, one_at_a_time

log = structlog.get_logger("tenantry.tenants")


class DeadLetterEvents:
    """Publishes them, under ids made of the letters' numbers."""

    def __init__(self, bus: Bus, events: EventPublisher, tenants: Table[Tenant]) -> None:
        self._events = events
        self._tenants = tenants
        config = one_at_a_time("tenants-letters", "dead.*.*.*")
        self._outbox = DurableOutbox(bus, DEAD, config, self._publish)

    async def start(self) -> None:
        """Make the consumer and begin."""
        await self._outbox.start()

    async def stop(self) -> None:
        """Stop; what is not acknowledged comes again."""
        await self._outbox.stop()

    async def _publish(self, message: Message) -> None:
        number = Delivery.of(message).seq
        name = message.subject.split(".", 2)[1]
        try:
            about, own = letter.load(message.headers or {})
        except BadMessage as error:
            log.error("dead letter unreadable", number=number, tenant=name, why=error.message)
            return
        tenant = self._tenants.get(name)
        if tenant is None or tenant.state == "deleted":
            log.warning("dead letter of no tenant", number=number, tenant=name)
            return
        if about.action == f"tenants.{event_name(MessageDead)}":
            return  # who fails at hearing of dead letters would hear of that one too, without end
        event = MessageDead(
            tenant=tenant.id,
            plan=tenant.plan,
            at=about.at,
            number=number,
            service=about.service,
            action=about.action,
            reason=about.reason,
            attempts=about.attempts,
            seq=about.seq,
        )
        hop = (trace.extract(own) or trace.new()).child()
        await self._events.publish(
            event, msg_id=f"{tenant.id}.d.{number}", hop=hop, hops=headers.hops(own) + 1
        )
