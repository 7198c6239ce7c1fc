"""Events of a tenant's own life: one for each revision of its record, in order, never lost.

The bucket's stream is the outbox: a durable consumer reads its revisions and publishes each as an
event under an id made of the revision, so that a repeat within the journal's window is dropped.
"""

from __future__ import annotations

import msgspec
import structlog

from tenantry.bus import Bus, Message
from tenantry.bus.jetstream import Delivery
from tenantry.messages import EVENT_OF_CHANGE, Tenant, TenantEvent
from tenantry.wire import trace
from tenantry_workers.tenants.outbox import DurableOutbox
from tenantry_workers.tenants.publisher import EventPublisher, one_at_a_time
from tenantry_workers.tenants.suspensions import Suspensions

_STREAM = "KV_tenants"

log = structlog.get_logger("tenantry.tenants")
_decode = msgspec.json.Decoder(Tenant).decode


def event_of(tenant: Tenant) -> TenantEvent:
    """The event that a revision is."""
    kind = EVENT_OF_CHANGE[tenant.change]
    about = {"suspended": "reason", "limits_changed": "note"}
    about |= dict.fromkeys(("credentials_issued", "credentials_revoked"), "public_key")
    fields: dict[str, object] = {"tenant": tenant.id, "plan": tenant.plan, "at": tenant.updated}
    if name := about.get(tenant.change):
        fields[name] = tenant.subject
    return kind(**fields)  # type: ignore[arg-type]


class TenantEvents:
    """Publishes them; of several replicas, each takes what the consumer gives it."""

    def __init__(self, bus: Bus, events: EventPublisher, suspensions: Suspensions) -> None:
        self._events = events
        self._suspensions = suspensions
        config = one_at_a_time("tenants-events", "$KV.tenants.>")
        self._outbox = DurableOutbox(bus, _STREAM, config, self._publish)

    async def start(self) -> None:
        """Make the consumer and begin."""
        await self._suspensions.start()
        await self._outbox.start()

    async def stop(self) -> None:
        """Stop; what is not acknowledged comes again."""
        await self._outbox.stop()

    async def _publish(self, message: Message) -> None:
        if message.headers and "KV-Operation" in message.headers:
            return
        try:
            tenant = _decode(message.data)
        except msgspec.MsgspecError as error:
            log.error("a tenant's record is unreadable", key=message.subject, why=str(error))
            return
        await self._suspensions.follow(tenant)
        msg_id = f"{tenant.id}.t.{Delivery.of(message).seq}"
        await self._events.publish(event_of(tenant), msg_id=msg_id, hop=trace.new())
