"""The router worker: `edge.>` in; `request.…`, `tenant.…` or a rejection out."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

import tenantry
from tenantry import tasks
from tenantry.bus import Bus, Message
from tenantry.context.platform import PlatformContext
from tenantry.errors import RateLimited, Rejection, SetupError
from tenantry.messages import RenewContext, RenewedContext
from tenantry.runtime import ContextSigner, Heartbeat, KeyTable, ServiceRun, WorkerOptions
from tenantry.runtime.audit import Audit
from tenantry.runtime.tallies import TallyBook
from tenantry.runtime.telling import Telling
from tenantry.service.service import Service
from tenantry.wire import problem, trace
from tenantry_workers.router.admission import (
    Admission,
    Contexts,
    Ignored,
    Limited,
    may_answer,
    rate_fields,
)
from tenantry_workers.router.directory import Directory
from tenantry_workers.router.limits import Limiter, LocalLimiter
from tenantry_workers.router.metrics import RouterMetrics
from tenantry_workers.router.parking import Parking
from tenantry_workers.router.quotas import Quotas
from tenantry_workers.router.renewal import Renewal
from tenantry_workers.router.suspicion import Suspicion
from tenantry_workers.router.volumes import Volumes

if TYPE_CHECKING:
    from tenantry_workers.router.limits.shared import SharedLimiter

GROUP = "router"
_SPAN = {"messaging.operation.name": "admit", "messaging.operation.type": "send"}
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
            admission = Admission(directory, limiter, contexts, quotas, volumes)
            audit = Audit(bus, "router", self.instance)
            await audit.start()
            stack.push_async_callback(audit.stop)
            routing = Routing(bus, admission, limiter, quotas, Suspicion(audit, directory))
            stack.push_async_callback(routing.stop)
            control = ServiceRun(
                bus,
                _control(Renewal(bus, keys.ring, minter, directory, audit)),
                keys,
                self.instance,
                about=lambda: {"plans": str(directory.plans.revision), **minter.about()},
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
            edge = await bus.listen("edge.>", routing.route, queue=GROUP)
            beat = Heartbeat(bus, [control.alive])
            await beat.start()
            chores = asyncio.create_task(_chores(routing, admission, limiter, contexts, quotas))
            log.info("ready", instance=self.instance, tenants=len(directory.tenants))
            ready()
            await stop.wait()
            log.info("stopping", instance=self.instance)
            await edge.stop()
            await routing.drain()
            await bus.flush()
            await beat.stop()
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


class Routing:
    """What happens to each message of the edge, at once and without a task.

    Only what the limiter can't tell at once is put aside, so that it holds up nobody else.
    """

    def __init__(
        self,
        bus: Bus,
        admission: Admission,
        limiter: Limiter,
        quotas: Quotas,
        suspicion: Suspicion,
    ) -> None:
        self.verdicts: Counter[str] = Counter()
        """How many messages met which verdict, since the start."""
        self.tallies = TallyBook()
        self._bus = bus
        self._admission = admission
        self._suspicion = suspicion
        self._reported: Counter[str] = Counter()
        self._parking = Parking(limiter, quotas, self._finish)
        self._late: set[asyncio.Task[None]] = set()

    def route(self, message: Message) -> None:
        """Forward one message once, or reject it; now, or when its limits are known."""
        limited = self._admission.limit(message.subject)
        if not self._parking.holds(message, limited):
            self._finish(message, limited)

    async def drain(self) -> None:
        """Return when all that has come is forwarded or rejected."""
        await self._parking.drain()
        if self._late:
            await asyncio.wait(self._late)

    async def stop(self) -> None:
        """Finish no more."""
        await tasks.end(*self._late)

    def _finish(self, message: Message, limited: Limited) -> None:
        headers = message.headers or {}
        with trace.span(
            "admit",
            trace.KIND_PRODUCER,
            trace.extract(headers),
            _SPAN,
        ) as span:
            try:
                admitted = self._admission.admit(
                    message.subject,
                    message.reply,
                    headers,
                    len(message.data),
                    span.trace,
                    limited,
                )
                self._send(admitted.subject, message.data, admitted.headers, message.reply)
            except Ignored:
                self.verdicts["ignored"] += 1
                self._suspicion.stranger(message)
            except Rejection as rejection:
                self._suspicion.refused(message, rejection)
                self.verdicts[rejection.code] += 1
                self.tallies.refused(limited.tenant, rejection.code)
                span.failed(rejection.code)
                self._reject(message, rejection, span.trace.trace_id)
            else:
                if admitted.forged:
                    self._suspicion.forged(message)
                self.verdicts["admitted"] += 1
                self.tallies.admitted(limited.tenant)

    def _reject(self, message: Message, rejection: Rejection, trace_id: str) -> None:
        if not may_answer(message.subject, message.reply):
            return
        fields, body = problem.dump(rejection, trace_id)
        if isinstance(rejection, RateLimited):
            fields |= rate_fields(rejection)
        self._send(message.reply, body, fields, "")

    def _send(self, subject: str, body: bytes, headers: dict[str, str], reply: str) -> None:
        """Publish now, or soon where the connection was lost a moment ago."""
        if self._bus.post(subject, body, headers=headers, reply=reply):
            return
        late = asyncio.create_task(self._send_late(subject, body, headers, reply))
        self._late.add(late)
        late.add_done_callback(self._late.discard)

    async def _send_late(
        self, subject: str, body: bytes, headers: dict[str, str], reply: str
    ) -> None:
        try:
            await self._bus.publish(subject, body, headers=headers, reply=reply)
        except Rejection as rejection:
            log.warning("message lost", subject=subject, why=str(rejection))

    def report(self) -> None:
        """Log what has been refused since the last time: counts, so a flood does not flood us."""
        fresh = self.verdicts - self._reported
        self._reported = Counter(self.verdicts)
        admitted = fresh.pop("admitted", 0)
        if fresh:
            log.warning("refused", admitted=admitted, **fresh)


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
