"""The router worker: `edge.>` in; `request.…`, `tenant.…` or a rejection out."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

import tenantry
from tenantry import tasks
from tenantry.bus import Bus, Subscription
from tenantry.context.platform import PlatformContext
from tenantry.errors import SetupError
from tenantry.messages import RenewContext, RenewedContext
from tenantry.runtime import (
    ClockCheck,
    ContextSigner,
    Heartbeat,
    KeyTable,
    ServiceRun,
    WorkerOptions,
    join,
    leave,
)
from tenantry.runtime.audit import Audit
from tenantry.runtime.telling import Telling
from tenantry.service.service import Service
from tenantry_workers.router.admission import Admission, Contexts
from tenantry_workers.router.directory import Directory
from tenantry_workers.router.limits import Limiter, LocalLimiter
from tenantry_workers.router.metrics import RouterMetrics
from tenantry_workers.router.quotas import Quotas
from tenantry_workers.router.renewal import Renewal
from tenantry_workers.router.room import JournalRoom
from tenantry_workers.router.routing import Routing
from tenantry_workers.router.suspicion import Suspicion
from tenantry_workers.router.volumes import Volumes

if TYPE_CHECKING:
    from tenantry_workers.router.limits.shared import SharedLimiter

GROUP = "router"
_REPORT = 10.0
_HOUSEKEEPING = 60.0

log = structlog.get_logger("tenantry.router")


class RouterWorker:
    """One replica of the router; any number share the edge as a queue group."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._home = options.operator_home()
        self.instance = secrets.token_hex(6)

    @classmethod
    def declared(cls) -> Service:
        """The requests that a router answers itself."""
        return _control(Renewal.__new__(Renewal))  # nothing is called, so nothing is needed

    async def run(self, stop: asyncio.Event, *, ready: Callable[[], None]) -> None:
        """Route until `stop` is set, then finish what has come and leave."""
        async with AsyncExitStack() as stack:
            bus = await Bus.connect(
                self._options.servers,
                creds=self._options.creds or self._home.creds_path("router"),
                name=f"router/{self.instance}",
                patience=2.0,
            )
            stack.push_async_callback(bus.close)
            keys = KeyTable(bus)
            minter = ContextSigner(self._home, keys)
            await keys.wait()
            stack.push_async_callback(keys.stop)
            await minter.ready()
            directory = Directory(bus)
            await directory.start()
            stack.push_async_callback(directory.stop)
            limiter, contexts = await self._limiter(stack, directory), Contexts(minter)
            quotas = Quotas(bus, routers=lambda: directory.routers)
            stack.push_async_callback(quotas.stop)
            volumes = Volumes(bus)
            await volumes.start()
            stack.push_async_callback(volumes.stop)
            room = JournalRoom(bus)
            await room.start()
            stack.push_async_callback(room.stop)
            admission = Admission(
                directory, limiter, contexts, quotas, volumes, room, largest=lambda: bus.max_body
            )
            audit = Audit(bus, "router", self.instance)
            await audit.start()
            stack.push_async_callback(audit.stop)
            routing = Routing(bus, admission, limiter, quotas, Suspicion(audit, directory))
            stack.push_async_callback(routing.stop)
            check = ClockCheck(bus)
            control = ServiceRun(
                bus,
                _control(Renewal(bus, keys.ring, minter, directory, audit)),
                keys,
                self.instance,
                about=lambda: {
                    "plans": str(directory.plans.revision),
                    **minter.about(),
                    **check.about(),
                },
            )
            await control.start()
            telling = Telling(
                bus, control.service.name, self.instance, routing.tallies, admission.levels
            )
            await telling.start()
            shared = None if isinstance(limiter, LocalLimiter) else limiter
            metrics = RouterMetrics(routing.verdicts, routing.tallies, shared)
            metrics.start()
            stack.callback(metrics.stop)
            edge = _Edge(bus, routing, control)
            stack.push_async_callback(check.stop)
            await check.start(edge.join, edge.leave)
            await check.joined.wait()
            chores = asyncio.create_task(_chores(routing, admission, limiter, contexts, quotas))
            log.info("ready", instance=self.instance, tenants=len(directory.tenants))
            ready()
            await stop.wait()
            log.info("stopping", instance=self.instance)
            await check.stop()
            await edge.leave()
            await routing.drain()
            await bus.flush()
            await telling.stop()
            await control.stop(asyncio.get_running_loop().time() + self._options.drain)
            await tasks.end(chores)
            routing.report()
        log.info("stopped", instance=self.instance)

    async def _limiter(
        self, stack: AsyncExitStack, directory: Directory
    ) -> LocalLimiter | SharedLimiter:
        if self._options.redis is None:
            return LocalLimiter(lambda: directory.routers)
        try:
            from tenantry_workers.router.limits.shared import SharedLimiter
            from tenantry_workers.router.limits.store import Store
        except ModuleNotFoundError as error:
            raise SetupError(
                "limits that routers share need the package redis",
                hint="pip install 'tenantry[redis]'",
            ) from error
        limiter = SharedLimiter(Store(self._options.redis), lambda: directory.routers)
        stack.push_async_callback(limiter.stop)
        await limiter.start()
        return limiter


class _Edge:
    """The router's part in the queue group of the edge, and in that of its own requests."""

    def __init__(self, bus: Bus, routing: Routing, control: ServiceRun) -> None:
        self._bus = bus
        self._routing = routing
        self._control = control
        self._beat = Heartbeat(bus, [control.alive])
        self._listening: Subscription | None = None

    async def join(self) -> None:
        """Take messages, and say so."""
        if self._listening is None:
            self._listening = await self._bus.listen("edge.>", self._routing.route, queue=GROUP)
        await join([self._control], self._beat)

    async def leave(self) -> None:
        """Take no message any more, and say so; those that have come are still routed."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stop()
        await leave([self._control], self._beat)


def _control(renewal: Renewal) -> Service:
    """What the router itself answers on `platform.router.…`."""
    service = Service("router", version=tenantry.__version__, platform=True)

    @service.request("renew_context")
    async def renew_context(_ctx: PlatformContext, ask: RenewContext) -> RenewedContext:
        """A fresh context for a message that waited in the journal."""
        return await renewal.renew(ask)

    return service


async def _chores(
    routing: Routing,
    admission: Admission,
    limiter: Limiter,
    contexts: Contexts,
    quotas: Quotas,
) -> None:
    cleaned = time.monotonic()
    while True:
        for _ in range(2):
            await asyncio.sleep(_REPORT / 2)
            await quotas.give_back()
        routing.report()
        if time.monotonic() - cleaned > _HOUSEKEEPING:
            cleaned = time.monotonic()
            if isinstance(limiter, LocalLimiter):  # what is shared tends to itself
                limiter.forget_idle(cleaned)
            admission.forget_idle(cleaned)
            contexts.forget_idle()
