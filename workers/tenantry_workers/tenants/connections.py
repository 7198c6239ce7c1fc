"""Connections: the newest of a tenant's programs over its plan are ended.

nats-server has no such limit for users of one account, so this worker counts what the servers tell
and has them end what is too much. All replicas do, and come to the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

import structlog

from tenantry import tasks
from tenantry.bus import Bus, Table
from tenantry.messages import Plan, QuotaExhausted, Tenant
from tenantry.plans import limits_of
from tenantry.wire import trace
from tenantry_workers.tenants.clients import Client, Clients
from tenantry_workers.tenants.publisher import EventPublisher

_TICK = 1.0
_RECONCILE = 60.0
_TELL = 600
"""A tenant hears of it at most once in so many seconds."""

log = structlog.get_logger("tenantry.tenants")


class Connections:
    """Holds each tenant to the connections of its plan."""

    def __init__(
        self,
        system: Bus,
        account: str,
        events: EventPublisher,
        tenants: Table[Tenant],
        plans: Table[Plan],
        overridden: Mapping[str, Tenant],
    ) -> None:
        self._system = system
        self._events = events
        self._tenants = tenants
        self._plans = plans
        self._overridden = overridden
        """The tenants that have limits of their own."""
        self._clients = Clients(system, account, self._changed)
        self._watching = False
        self._reconciled = -_RECONCILE
        self._slot = 0
        self._told: set[str] = set()
        """Who has heard of it in this slot of time."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Count as soon as a plan or tenant has a bound."""
        self._system.on_reconnect(self._missed)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Count no more."""
        await tasks.end(self._task)
        await self._clients.stop()

    def _changed(self, _tenant: str) -> None:
        self._wake.set()

    def _missed(self) -> None:
        self._reconciled = -_RECONCILE
        self._wake.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if self._watching or self._is_bounded():
                    await self._round()
            except Exception as error:  # noqa: BLE001  (a count that ends would never be missed)
                log.warning("connections are not counted", why=str(error))
                await asyncio.sleep(_TICK)

    def _is_bounded(self) -> bool:
        return any(plan.connections for plan in self._plans.rows.values()) or any(
            tenant.override is not None and tenant.override.connections
            for tenant in self._overridden.values()
        )

    async def _round(self) -> None:
        if not self._watching:
            await self._clients.start()
            self._watching = True
        if time.monotonic() - self._reconciled > _RECONCILE:
            await self._clients.reconcile()
            self._reconciled = time.monotonic()
        if self._too_many():
            await self._clients.drop_dead()
            for name, clients in self._too_many().items():
                await self._end(name, clients)

    def _too_many(self) -> dict[str, list[Client]]:
        """The newest connections of each tenant that has more than it may."""
        now = time.time()
        found = {}
        for name, clients in self._clients.open.items():
            tenant = self._tenants.get(name)
            plan = limits_of(tenant, self._plans.rows, now) if tenant is not None else None
            if plan is not None and plan.connections and len(clients) > plan.connections:
                found[name] = sorted(clients)[plan.connections :]
        return found

    async def _end(self, name: str, clients: list[Client]) -> None:
        await asyncio.gather(*(self._clients.kick(name, client) for client in clients))
        slot = int(time.time()) // _TELL
        if slot != self._slot:
            self._slot, self._told = slot, set()
        if name in self._told:
            return
        self._told.add(name)
        log.warning("too many connections", tenant=name, ended=len(clients))
        tenant = self._tenants.get(name)
        plan = limits_of(tenant, self._plans.rows, time.time()) if tenant is not None else None
        if tenant is None or plan is None or tenant.state == "deleted":
            return
        event = QuotaExhausted(
            tenant=name,
            plan=tenant.plan,
            at=round(time.time(), 3),
            quota="connections",
            window="",
            used=plan.connections + len(clients),
            amount=plan.connections,
            limit=plan.connections,
        )
        msg_id = f"{name}.q.connections.{slot}"
        await self._events.publish(event, msg_id=msg_id, hop=trace.new())
