"""Events of a tenant's own life: one for each revision of its record, in order, never lost.

The bucket's stream is the outbox: a durable consumer reads its revisions and publishes each as an
event under an id made of the revision, so that a repeat within the journal's window is dropped.
"""

from __future__ import annotations

import msgspec
import structlog

from tenantry.bus import Bus, Message, Table
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.context.token import Minter
from tenantry.messages import EVENT_OF_CHANGE, Plan, Tenant, TenantEvent
from tenantry.wire import codec, headers, trace
from tenantry_workers.tenants.outbox import DurableOutbox

_STREAM = "KV_tenants"
_CONSUMER = "tenants-events"
_WAIT = 5.0

log = structlog.get_logger("tenantry.tenants")
_decode = msgspec.json.Decoder(Tenant).decode


def event_name(change: str) -> str:
    """The action of the event that follows a change: `tenant_suspended`, `credentials_issued`."""
    return change if change.startswith("credentials") else f"tenant_{change}"


def event_of(tenant: Tenant) -> tuple[str, TenantEvent]:
    """The event that a revision is: its action and its body."""
    kind = EVENT_OF_CHANGE[tenant.change]
    about = {"suspended": "reason", "credentials_issued": "public_key"}
    about["credentials_revoked"] = "public_key"
    fields: dict[str, object] = {"tenant": tenant.id, "plan": tenant.plan, "at": tenant.updated}
    if name := about.get(tenant.change):
        fields[name] = tenant.subject
    return event_name(tenant.change), kind(**fields)  # type: ignore[arg-type]


class TenantEvents:
    """Publishes them; of several replicas, each takes what the consumer gives it."""

    def __init__(self, bus: Bus, minter: Minter, plans: Table[Plan]) -> None:
        self._bus = bus
        self._plans = plans
        self._minter = minter
        config = {
            "name": _CONSUMER,
            "durable_name": _CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": int(_WAIT * 1e9),
            # One at a time, over all replicas: the events of a tenant keep their order.
            "max_ack_pending": 1,
            "filter_subjects": ["$KV.tenants.>"],
        }
        self._outbox = DurableOutbox(bus, _STREAM, config, self._publish)

    async def start(self) -> None:
        """Make the consumer and begin."""
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
        action, event = event_of(tenant)
        plan = self._plans.get(tenant.plan)
        retention = plan.retention if plan is not None else 0
        fields = {
            headers.MSG_ID: f"{tenant.id}.t.{Delivery.of(message).seq}",
            headers.CONTEXT: self._minter.mint(
                tenant.id, tenant.plan, "platform", retention=retention
            ),
        }
        if retention:
            fields[headers.TTL] = f"{retention}s"
        trace.new().inject(fields)
        subject = f"tenant.{tenant.id}.tenants.{action}"
        await js.store(self._bus, subject, codec.encode(event), headers=fields)
