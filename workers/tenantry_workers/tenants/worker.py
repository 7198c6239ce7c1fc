"""The tenants worker: the control plane's process for tenants."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from tenantry.bus import Bucket, Bus, Table
from tenantry.messages import Plan, Tenant
from tenantry.runtime import (
    ClockCheck,
    ContextSigner,
    Heartbeat,
    KeyTable,
    ServiceRun,
    WorkerOptions,
    config,
    join,
    leave,
)
from tenantry.runtime.audit import Audit
from tenantry.service.service import Service
from tenantry_workers.tenants.connections import Connections
from tenantry_workers.tenants.doors import Doors
from tenantry_workers.tenants.events import TenantEvents
from tenantry_workers.tenants.health import JournalWatch
from tenantry_workers.tenants.keys import KeyKeeper
from tenantry_workers.tenants.letters import DeadLetterEvents
from tenantry_workers.tenants.logins import RefusedLogins
from tenantry_workers.tenants.plans import PlanEvents
from tenantry_workers.tenants.provision import provision
from tenantry_workers.tenants.publisher import EventPublisher
from tenantry_workers.tenants.quotas import QuotaEvents
from tenantry_workers.tenants.schedules import DueSchedules
from tenantry_workers.tenants.service import TenantsService
from tenantry_workers.tenants.store import TenantStore
from tenantry_workers.tenants.suspensions import Suspensions
from tenantry_workers.tenants.upgrade import Upgrade
from tenantry_workers.tenants.violations import Violations
from tenantry_workers.tenants.volumes import VolumeCount

log = structlog.get_logger("tenantry.tenants")


class TenantsWorker:
    """One replica of the tenants worker; any number share `platform.tenants.*`."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._home = options.operator_home()
        self._config = config.load(self._home.path / config.FILE)
        self.instance = secrets.token_hex(6)

    @classmethod
    def declared(cls) -> Service:
        """The control plane's requests about tenants, and the events that follow from them."""
        handlers = TenantsService.__new__(TenantsService)  # nothing is called or needed
        return handlers.service()

    async def run(self, stop: asyncio.Event, *, ready: Callable[[], None]) -> None:
        """Set up the mesh's streams, then serve until `stop` is set."""
        async with AsyncExitStack() as stack:
            bus = await self._connect(stack, "control")
            system = await self._connect(stack, "sys")
            await provision(bus, self._config)
            upgrade = Upgrade(bus)
            await upgrade.start()
            stack.push_async_callback(upgrade.stop)
            keys = KeyTable(bus, self._home.context_root)
            minter = ContextSigner(self._home, keys)
            keeper = KeyKeeper(bus, self._home, keys)
            for early in (keeper, keys):
                await early.start()
                stack.push_async_callback(early.stop)
            await minter.ready()
            plans = Table(Bucket(bus, "plans", Plan))
            tenants = Table(Bucket(bus, "tenants", Tenant))
            doors = Doors(bus, system, self._home, tenants, plans)
            tenants.listen(doors.noted)
            plans.listen(doors.changed)
            publisher = EventPublisher(bus, minter, tenants, plans)
            events = TenantEvents(bus, publisher, Suspensions(bus, tenants))
            letters = DeadLetterEvents(bus, publisher, tenants)
            due = DueSchedules(bus, minter, keys.ring, tenants, plans)
            limits = PlanEvents(bus, publisher, tenants)
            quotas = QuotaEvents(bus, publisher, tenants, plans)
            volumes = VolumeCount(
                bus,
                publisher,
                tenants,
                plans,
                overridden=doors.ledger.overridden,
                instance=self.instance,
                max_age=self._config.journal.max_age,
            )
            account = self._home.edge_public_key
            connections = Connections(
                system, account, publisher, tenants, plans, doors.ledger.overridden
            )
            audit = Audit(bus, "tenants", self.instance)
            watch: list[RefusedLogins | Violations] = [RefusedLogins(system, audit, doors, tenants)]
            if self._options.server_log is not None:
                watch.append(Violations(self._options.server_log, audit, tenants, doors.ledger))
            follow = (events, letters, limits, quotas, due, volumes, connections)
            health = JournalWatch(bus)
            for part in (plans, tenants, doors, *follow, audit, *watch, health):
                await part.start()
                stack.push_async_callback(part.stop)
            _warn_of_large_bodies(bus, plans)
            stack.callback(bus.on_reconnect(lambda: _warn_of_large_bodies(bus, plans)))
            store = TenantStore(bus)
            handlers = TenantsService(store, self._home, doors, tenants, plans, minter)
            check = ClockCheck(bus)
            run = ServiceRun(
                bus,
                handlers.service(),
                keys,
                self.instance,
                about=lambda: minter.about() | doors.about() | check.about(),
            )
            await run.start()
            beat = Heartbeat(bus, [run.alive])
            stack.push_async_callback(check.stop)
            await check.start(lambda: join([run], beat), lambda: leave([run], beat))
            await check.joined.wait()
            log.info("ready", instance=self.instance, tenants=len(tenants))
            ready()
            await stop.wait()
            log.info("stopping", instance=self.instance)
            await check.stop()
            await beat.stop()
            await run.stop(asyncio.get_running_loop().time() + self._options.drain)
        log.info("stopped", instance=self.instance)

    async def _connect(self, stack: AsyncExitStack, role: str) -> Bus:
        creds = self._home.creds_path(role)
        if role == "control" and self._options.creds is not None:
            creds = self._options.creds
        bus = await Bus.connect(
            self._options.servers, creds=creds, name=f"tenants.{role}/{self.instance}"
        )
        stack.push_async_callback(bus.close)
        return bus


def _warn_of_large_bodies(bus: Bus, plans: Table[Plan]) -> None:
    """Plans are checked when they are applied; nats-server's limit may have fallen since."""
    most = bus.max_body
    over = sorted(name for name, plan in plans.rows.items() if plan.max_body > most)
    if over:
        log.warning(
            "plans allow larger bodies than NATS takes: routers refuse", plans=over, most=most
        )
