"""A worker: one process that runs one or more services until it is told to stop.

`Worker.run` tells a worker's whole life.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from tenantry import rows, subjects
from tenantry.bus import Bus, Message, Subscription
from tenantry.delivery.lanes import Known, Lanes
from tenantry.delivery.suspects import Suspects
from tenantry.errors import DeclarationError
from tenantry.messages import Alive, Erasure, InHand
from tenantry.operator import creds as creds_files
from tenantry.operator.roles import ERASED
from tenantry.runtime import registry
from tenantry.runtime.attempts import StoredAttempts
from tenantry.runtime.audit import Audit
from tenantry.runtime.clock_check import ClockCheck
from tenantry.runtime.declared import DeclaredActions, Outgoing
from tenantry.runtime.discovery import Discovery
from tenantry.runtime.keys import KeyTable
from tenantry.runtime.members import Heartbeat, Members
from tenantry.runtime.mesh import WorkerMesh
from tenantry.runtime.metrics import ServiceMetrics
from tenantry.runtime.outbox import Outbox, Renewer
from tenantry.runtime.requests import Endpoint, Requests
from tenantry.runtime.runner import Runner
from tenantry.runtime.slots import Slots
from tenantry.runtime.stored import StoredMessages
from tenantry.runtime.telling import Telling
from tenantry.runtime.watchdog import Watchdog
from tenantry.service.handler import Handler
from tenantry.service.service import Service
from tenantry.wire import codec

DRAIN = 20.0
"""How long a worker that is told to stop may finish what it has begun, seconds."""

_decode_erasure = codec.Decoder(Erasure)

log = structlog.get_logger("tenantry.worker")


class Worker:
    """Runs services on one connection."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        servers: str | Sequence[str],
        creds: str | Path | None = None,
        drain: float = DRAIN,
    ) -> None:
        if not services:
            raise DeclarationError("a worker needs at least one service")
        names = [service.name for service in services]
        if twice := {name for name in names if names.count(name) > 1}:
            raise DeclarationError(f"two services are named {', '.join(sorted(twice))}")
        if idle := [each.name for each in services if not (each.handlers or each.followers)]:
            raise DeclarationError(
                f"service {idle[0]} handles nothing",
                hint="declare a handler, or import the module that declares them",
            )
        self.services = list(services)
        self.instance = secrets.token_hex(6)
        self._servers = servers
        self._creds = creds
        self._drain = drain

    async def run(self, stop: asyncio.Event, *, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is set, then finish what has begun; `ready` is called in between.

        Raises :class:`ConnectionFailed`, :class:`DeclarationError` or :class:`SetupError` when it
        can't begin.
        """
        if self._creds is not None:
            ours = [service.name for service in self.services if not service.platform]
            creds_files.check_covers(Path(self._creds), ours)
        async with AsyncExitStack() as stack:
            bus = await Bus.connect(
                self._servers,
                creds=self._creds,
                name=f"{'+'.join(s.name for s in self.services)}/{self.instance}",
            )
            stack.push_async_callback(bus.close)
            keys = KeyTable(bus)
            if not all(service.platform for service in self.services):
                await keys.wait()
                stack.push_async_callback(keys.stop)
            check = ClockCheck(bus)
            running = await self._start(stack, bus, keys, check)
            beat = Heartbeat(bus, [run.alive for run in running])
            stack.push_async_callback(check.stop)
            await check.start(lambda: join(running, beat), lambda: leave(running, beat))
            await check.joined.wait()
            log.info("ready", services=[s.name for s in self.services], instance=self.instance)
            ready()
            await stop.wait()
            log.info("stopping", instance=self.instance)
            await check.stop()
            await beat.stop()
            deadline = asyncio.get_running_loop().time() + self._drain
            await asyncio.gather(*(run.stop(deadline) for run in running))
        log.info("stopped", instance=self.instance)

    async def _start(
        self, stack: AsyncExitStack, bus: Bus, keys: KeyTable, check: ClockCheck
    ) -> list[ServiceRun]:
        """Start the services, but for their requests; `stack` stops them."""
        suspects, declared = Suspects(), DeclaredActions(bus, self.services)
        if not all(service.platform for service in self.services):
            await declared.start()
            stack.push_async_callback(declared.stop)
        handlers = [
            handler
            for service in self.services
            for handler in (*service.handlers.values(), *service.followers.values())
        ]
        running = [
            ServiceRun(
                bus,
                service,
                keys,
                self.instance,
                about=check.about,
                suspects=suspects,
                declared=declared,
            )
            for service in self.services
        ]
        await stack.enter_async_context(Watchdog(handlers))
        for run in running:
            run.runner.resources = await stack.enter_async_context(run.service.living())
        for run in running:
            # For a start that fails; after an orderly stop there is nothing left to stop.
            stack.push_async_callback(run.stop, 0.0)
            await run.start()
        return running


async def join(running: Sequence[ServiceRun], beat: Heartbeat) -> None:
    """Take requests, and say so."""
    for run in running:
        await run.open()
    await beat.start()


async def leave(running: Sequence[ServiceRun], beat: Heartbeat) -> None:
    """Say that nobody should send requests here, and take none; stored messages go on."""
    await beat.stop()
    for run in running:
        await run.shut()


class ServiceRun:
    """One service in one worker."""

    def __init__(
        self,
        bus: Bus,
        service: Service,
        keys: KeyTable,
        instance: str,
        *,
        about: Callable[[], dict[str, str]] = dict,
        suspects: Suspects | None = None,
        declared: DeclaredActions | None = None,
    ) -> None:
        renewer = Renewer(bus)
        self._declared = declared
        self.service = service
        self.alive = Alive(service=service.name, version=service.version, instance=instance)
        self._cursors = rows.cursors(bus, service.name)
        self._replays = rows.replays(bus, service.name)
        self._suspended = rows.suspended(bus)
        self._audit = Audit(bus, service.name, instance)
        self.runner = Runner(
            service,
            keys.ring,
            WorkerMesh(bus, renewer, self._audit),
            Outbox(bus, renewer),
            self._audit,
            caught_up=keys.caught_up,
        )
        if declared is not None:
            self.runner.mesh.outgoing = Outgoing(service.name, declared, self.runner.stats.unknown)
        self.slots = Slots(service, self.runner.stats)
        self._requests = Requests(bus, self.runner, self.slots, self._cursors)
        self._bus = bus
        self._members = Members(bus, service.name, changed=lambda _: self._changed())
        self._discovery = Discovery(
            bus, service, instance, self.runner.stats, lambda: keys.about() | about()
        )
        self._lanes = Lanes(
            bus,
            service,
            instance,
            StoredAttempts(StoredMessages(self.runner), self.slots, self.runner.commit),
            Known(
                cursors=self._cursors,
                replays=self._replays,
                suspended=self._suspended,
                suspects=suspects if suspects is not None else Suspects(),
            ),
        )
        self._telling = Telling(bus, service.name, instance, self.runner.stats.tenants)
        self._metrics = ServiceMetrics(service, self.runner.stats, self._lanes)
        self._subscriptions: list[Subscription] = []
        self._erasing: Subscription | None = None

    async def start(self) -> None:
        """Register, then begin to serve; requests are taken from :meth:`open` on."""
        await self._members.start()
        if not self.service.platform:
            living = await registry.living(self._bus, self.service.name)
            await self._cursors.start()
            await self._replays.start()
            await self._suspended.start()
            versions = {alive.version for alive in living}
            await registry.register(self._bus, self.service.declaration(), versions)
            if self._declared is not None:
                self._declared.warn(self.service)
            for alive in living:
                self._members.hear(alive)
        self._members.hear(self.alive)
        await self._audit.start()
        await self._discovery.start()
        if not self.service.platform:
            await self._telling.start()
            self._erasing = await self._bus.subscribe(ERASED, self._erased)
        self._metrics.start()
        await self._lanes.start()

    async def open(self) -> None:
        """Take requests."""
        await self.shut()
        for handler in self.service.handlers.values():
            if handler.kind == "request":
                self._subscriptions.append(await self._subscribe(handler))

    async def shut(self) -> None:
        """Take no request any more; those that are here are still answered."""
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(subscription.stop() for subscription in subscriptions))

    def _changed(self) -> None:
        self.slots.replicas = max(1, len(self._members.instances(self.service.name)))

    async def _erased(self, message: Message) -> None:
        """End what is in hand of a tenant that is erased, and tell what has not ended yet."""
        erasure = _decode_erasure(message.data)
        self._lanes.erased(erasure.tenant, erasure.upto)
        left = InHand(
            service=self.service.name,
            instance=self.alive.instance,
            count=self.slots.held(erasure.tenant),
        )
        await self._bus.answer(message, codec.encode(left))

    async def _subscribe(self, handler: Handler) -> Subscription:
        place = subjects.platform if self.service.platform else subjects.requests
        return await self._bus.listen(
            place(self.service.name, handler.action),
            functools.partial(self._requests.accept, Endpoint(handler)),
            queue=self.service.name,
        )

    async def stop(self, deadline: float) -> None:
        """Take nothing new, finish what has begun until `deadline` (loop time)."""
        await self._discovery.stop()
        await self._telling.stop()
        await asyncio.gather(
            self.shut(),
            self._lanes.stop(deadline),
        )
        await self._requests.drain(deadline)
        if self._erasing is not None:
            await self._erasing.stop()
        await self._audit.stop()
        await self._members.stop()
        await self._cursors.stop()
        await self._replays.stop()
        await self._suspended.stop()
        self._metrics.stop()
