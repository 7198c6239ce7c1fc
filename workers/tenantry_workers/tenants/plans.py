"""An event for each tenant on a plan that was changed: `tenants.resource_quota_updated`."""

from __future__ import annotations

import time

from tenantry.bus import Bus, Message, Table
from tenantry.bus.jetstream import Delivery
from tenantry.messages import ResourceQuotaUpdated, Tenant
from tenantry.wire import trace
from tenantry_workers.tenants.outbox import DurableOutbox
from tenantry_workers.tenants.publisher import EventPublisher, one_at_a_time

_AT_ONCE = 500


class PlanEvents:
    """Publishes them, under ids made of the plan's revision."""

    def __init__(self, bus: Bus, events: EventPublisher, tenants: Table[Tenant]) -> None:
        self._bus = bus
        self._events = events
        self._tenants = tenants
        config = one_at_a_time("tenants-plans", "$KV.plans.>") | {"deliver_policy": "new"}
        self._outbox = DurableOutbox(bus, "KV_plans", config, self._publish)

    async def start(self) -> None:
        """Make the consumer and begin."""
        await self._outbox.start()

    async def stop(self) -> None:
        """Stop; what is not acknowledged comes again."""
        await self._outbox.stop()

    async def _publish(self, message: Message) -> None:
        revision, name = Delivery.of(message).seq, message.subject.rpartition(".")[2]
        concerned = [
            tenant
            for tenant in self._tenants.rows.values()
            if tenant.plan == name and tenant.state != "deleted"
        ]
        now = round(time.time(), 3)
        for number, tenant in enumerate(concerned, start=1):
            event = ResourceQuotaUpdated(tenant=tenant.id, plan=name, at=now)
            msg_id = f"{tenant.id}.p.{revision}"
            await self._events.publish(event, msg_id=msg_id, hop=trace.new())
            if number % _AT_ONCE == 0:
                await self._bus.publish(message.reply, b"+WPI")  # many tenants take a while
