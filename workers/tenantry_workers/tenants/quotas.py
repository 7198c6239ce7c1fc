"""Events at 80 % and at all of what a plan includes for a day or month.

The routers' counts in the bucket `usage` are the truth; what was told of them stands in the same
row, so each event comes once however often this worker starts.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog

from tenantry import tasks
from tenantry.bus import Bucket, Bus, Table
from tenantry.errors import JetStreamError, Rejection
from tenantry.messages import Count, Plan, Quota, QuotaExhausted, QuotaWarned, Tenant, Usage
from tenantry.plans import effective
from tenantry.wire import trace
from tenantry_workers.tenants.publisher import EventPublisher

_LEVELS = ("", "warned", "exhausted")
_RETRY = 1.0

log = structlog.get_logger("tenantry.tenants")


def level(quota: Quota, used: int) -> str:
    """What there is to tell of so many messages."""
    if used >= quota.amount:
        return "exhausted"
    return "warned" if used * 5 >= quota.amount * 4 else ""


class QuotaEvents:
    """Publishes `tenants.quota_warned` and `tenants.quota_exhausted`."""

    def __init__(
        self, bus: Bus, events: EventPublisher, tenants: Table[Tenant], plans: Table[Plan]
    ) -> None:
        self._events = events
        self._tenants = tenants
        self._plans = plans
        self._bucket = Bucket(bus, "usage", Usage)
        self._usage = Table(self._bucket, changed=self._changed)
        self._due: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look at all that was used, then at each change."""
        await self._usage.start()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop; what was not told yet is told at the next start."""
        await self._usage.stop()
        await tasks.end(self._task)

    def _changed(self, name: str, usage: Usage | None) -> None:
        if usage is not None:
            self._due[name] = None
            self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                name = next(iter(self._due))
                del self._due[name]  # before: what changes meanwhile is looked at once more
                try:
                    await self._look(name)
                except (Rejection, JetStreamError) as error:
                    log.warning("a quota's event has to wait", tenant=name, why=str(error))
                    self._due[name] = None
                    await asyncio.sleep(_RETRY)

    async def _look(self, name: str) -> None:
        tenant, usage = self._tenants.get(name), self._usage.get(name)
        plan = self._plans.get(tenant.plan) if tenant is not None else None
        if tenant is None or usage is None or plan is None or tenant.state == "deleted":
            return
        plan = effective(plan, tenant.override, time.time())
        for quota in plan.quotas:
            count = usage.counts.get(quota.name)
            if count is None or quota.shadow:
                continue
            reached = level(quota, count.used)
            if _LEVELS.index(reached) > _LEVELS.index(count.told):
                await self._tell(tenant, quota, count, reached)

    async def _tell(self, tenant: Tenant, quota: Quota, count: Count, reached: str) -> None:
        kind = QuotaExhausted if reached == "exhausted" else QuotaWarned
        event = kind(
            tenant=tenant.id,
            plan=tenant.plan,
            at=round(time.time(), 3),
            quota=quota.name,
            window=count.window,
            used=count.used,
            amount=quota.amount,
            limit=quota.limit,
        )
        # Several replicas may come here; the journal drops what has the same id.
        msg_id = f"{tenant.id}.q.{quota.name}.{count.window}.{reached}"
        await self._events.publish(event, msg_id=msg_id, hop=trace.new())

        def told(row: Usage | None) -> Usage | None:
            now = row.counts.get(quota.name) if row is not None else None
            if row is None or now is None or now.window != count.window:
                return row
            marked = msgspec.structs.replace(now, told=reached)
            return Usage(counts={**row.counts, quota.name: marked})

        await self._bucket.change(tenant.id, told)
