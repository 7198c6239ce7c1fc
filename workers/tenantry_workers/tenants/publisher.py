"""Publishing an event about a tenant in the control plane's own name."""

from __future__ import annotations

import re
import time
from typing import Any

from tenantry import subjects
from tenantry.bus import Bus, Table
from tenantry.bus import jetstream as js
from tenantry.context.token import Mints, terms
from tenantry.messages import Plan, Tenant, TenantEvent
from tenantry.plans import effective
from tenantry.wire import codec, headers, trace

_WAIT = 5.0


def event_name(kind: type[TenantEvent]) -> str:
    """The action of an event: `tenant_suspended`, `credentials_issued`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


class EventPublisher:
    """Publishes events of the service `tenants`, each with a context of its tenant."""

    def __init__(self, bus: Bus, minter: Mints, tenants: Table[Tenant], plans: Table[Plan]) -> None:
        self._bus = bus
        self._minter = minter
        self._tenants = tenants
        self._plans = plans

    async def publish(
        self, event: TenantEvent, *, msg_id: str, hop: trace.Trace, hops: int = 0
    ) -> None:
        """Store one event, kept for as long as the plan says. Raises what the journal says.

        `hops` is how many messages of services led to it.
        """
        tenant, plan = event.tenant, event.plan
        found, holder = self._plans.get(plan), self._tenants.get(tenant)
        if found is not None and holder is not None:
            found = effective(found, holder.override, time.time())
        retention = found.retention if found is not None else 0
        fields = {
            headers.MSG_ID: msg_id,
            headers.CONTEXT: self._minter.mint(tenant, plan, "platform", **terms(found)),
        }
        if hops:
            fields[headers.HOPS] = str(hops)
        if retention:
            fields[headers.TTL] = f"{retention}s"
        hop.inject(fields)
        subject = subjects.journal(subjects.Address(tenant, "tenants", event_name(type(event))))
        await js.store(self._bus, subject, codec.encode(event), headers=fields)


def one_at_a_time(name: str, subject: str) -> dict[str, Any]:
    """A durable consumer that keeps the order over all replicas of the worker."""
    return {
        "name": name,
        "durable_name": name,
        "ack_policy": "explicit",
        "ack_wait": int(_WAIT * 1e9),
        "max_ack_pending": 1,
        "filter_subjects": [subject],
    }
