"""An event for each dead letter, so that somebody hears of it: `tenants.message_dead`."""

from __future__ import annotations

import structlog

from tenantry import subjects
from tenantry.bus import Bus, Message, Table
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.context.token import Minter
from tenantry.errors import BadMessage
from tenantry.messages import MessageDead, Plan, Tenant
from tenantry.streams import DEAD
from tenantry.wire import codec, headers, letter, trace
from tenantry_workers.tenants.outbox import DurableOutbox

EVENT = "message_dead"

_CONSUMER = "tenants-letters"
_WAIT = 5.0

log = structlog.get_logger("tenantry.tenants")


class DeadLetterEvents:
    """Publishes them, under ids made of the letters' numbers."""

    def __init__(
        self, bus: Bus, minter: Minter, tenants: Table[Tenant], plans: Table[Plan]
    ) -> None:
        self._bus = bus
        self._minter = minter
        self._tenants = tenants
        self._plans = plans
        config = {
            "name": _CONSUMER,
            "durable_name": _CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": int(_WAIT * 1e9),
            # One at a time, over all replicas: the events of a tenant keep their order.
            "max_ack_pending": 1,
            "filter_subjects": ["dead.*.*.*"],
        }
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
        if about.action == f"tenants.{EVENT}":
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
        plan = self._plans.get(tenant.plan)
        retention = plan.retention if plan is not None else 0
        fields = {
            headers.MSG_ID: f"{tenant.id}.d.{number}",
            headers.CONTEXT: self._minter.mint(
                tenant.id, tenant.plan, "platform", retention=retention
            ),
        }
        if retention:
            fields[headers.TTL] = f"{retention}s"
        (trace.extract(own) or trace.new()).child().inject(fields)
        subject = subjects.journal(subjects.Address(tenant.id, "tenants", EVENT))
        await js.store(self._bus, subject, codec.encode(event), headers=fields)
