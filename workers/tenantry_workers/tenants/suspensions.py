"""The bucket `suspended`: the tenants whose stored messages wait, for services to watch.

It follows from the tenants' records, which services may not read.
"""

from __future__ import annotations

import contextlib

from tenantry.bus import Bucket, Bus, Table
from tenantry.errors import Conflict
from tenantry.messages import Suspension, Tenant


class Suspensions:
    """Keeps the bucket at what the records say."""

    def __init__(self, bus: Bus, tenants: Table[Tenant]) -> None:
        self._tenants = tenants
        self._records = Bucket(bus, "tenants", Tenant)
        self._bucket = Bucket(bus, "suspended", Suspension)

    async def start(self) -> None:
        """Write down those that were suspended before there was the bucket."""
        for tenant in list(self._tenants.rows.values()):
            if tenant.state != "suspended":
                continue
            with contextlib.suppress(Conflict):
                await self._bucket.create(tenant.id, Suspension(since=tenant.updated))
                now = await self._records.get(tenant.id)
                if now is None or now.value.state != "suspended":  # it was resumed meanwhile
                    await self._bucket.delete(tenant.id)

    async def follow(self, tenant: Tenant) -> None:
        """Follow one revision of a tenant's record; they come in order, and may come again."""
        if tenant.change == "suspended":
            await self._bucket.put(tenant.id, Suspension(since=tenant.updated))
        elif tenant.change in ("resumed", "deleted"):
            await self._bucket.delete(tenant.id)
