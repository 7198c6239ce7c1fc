"""`platform.router.renew_context`: a fresh context for what waited in the journal.

A worker may handle a message long after the context it was stored with has expired. Its answer to
the world needs a context that is valid now; only the router can sign one, and it does so only for
a context that stands in the journal as it was stored.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from tenantry.bus import Bus
from tenantry.context.token import KeyRing, Mints, terms
from tenantry.errors import BadContext, TenantUnknown
from tenantry.messages import RenewContext, RenewedContext
from tenantry.runtime.audit import Audit
from tenantry.streams import JOURNAL
from tenantry.subjects import parse_stored
from tenantry.wire import headers as names
from tenantry.wire.codec import encode
from tenantry_workers.router.directory import Directory


class Renewal:
    """Checks a context against the journal and mints its successor."""

    def __init__(
        self,
        bus: Bus,
        ring: KeyRing,
        minter: Mints,
        directory: Directory,
        audit: Audit,
    ) -> None:
        self._bus = bus
        self._ring = ring
        self._minter = minter
        self._directory = directory
        self._audit = audit

    async def renew(self, ask: RenewContext) -> RenewedContext:
        """Mint for the tenant of journal message `ask.seq`; raises :class:`BadContext`.

        A suspended tenant's is renewed: what was begun is finished. A deleted one's is not.
        """
        answer = await self._bus.call(f"$JS.API.DIRECT.GET.{JOURNAL}", encode({"seq": ask.seq}))
        found: dict[Any, str] = answer.headers or {}
        if found.get(names.CONTEXT) != ask.token or "Nats-Subject" not in found:
            if "Nats-Subject" in found:  # else it is gone meanwhile, as everything goes once
                self._suspect(ask, parse_stored(found["Nats-Subject"]).tenant)
            raise BadContext("the journal holds no such context at this sequence")
        address = parse_stored(found["Nats-Subject"])
        stored = dt.datetime.fromisoformat(found["Nats-Time-Stamp"])
        claims = self._ring.verify(ask.token, address.tenant, stored.timestamp())
        tenant = self._directory.tenants.get(address.tenant)
        if tenant is None or tenant.state == "deleted":
            raise TenantUnknown("the tenant was deleted")
        plan = self._directory.plan_of(address.tenant, tenant)
        return RenewedContext(
            token=self._minter.mint(
                address.tenant,
                tenant.plan,
                claims.principal,
                roles=claims.roles,
                cell=claims.cell,
                **terms(plan or claims),
            )
        )

    def _suspect(self, ask: RenewContext, tenant: str) -> None:
        owner = self._ring.owner(ask.token)
        self._audit.refused(
            "bad_renewal",
            tenant=owner,
            victim=tenant if tenant != owner else "",
            subject="platform.router.renew_context",
            why="the journal has another context at this sequence",
        )
