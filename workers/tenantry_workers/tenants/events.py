"""Events of a tenant's own life: one for each revision of its record, in order, never lost.

The bucket's stream is the outbox: a durable consumer reads its revisions and publishes each as an
event under an id made of the revision, so that a repeat within the journal's window is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import structlog

from tenantry import tasks
from tenantry.bus import Bus, Message, Pull, Table
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.context.token import Minter
from tenantry.errors import JetStreamError, Rejection
from tenantry.messages import EVENT_OF_CHANGE, Plan, Tenant, TenantEvent
from tenantry.wire import codec, headers, trace

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
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._lost = asyncio.Event()
        self._pull: Pull | None = None
        self._mending: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the consumer and begin."""
        await self._ensure()
        self._pull = Pull(
            self._bus,
            _STREAM,
            _CONSUMER,
            receive=self._queue.put_nowait,
            room=lambda: 16 - self._queue.qsize(),
            lost=self._lost.set,
        )
        await self._pull.start()
        self._task = asyncio.create_task(self._run())
        self._mending = asyncio.create_task(self._mend())

    async def stop(self) -> None:
        """Stop; what is not acknowledged comes again."""
        if self._pull is not None:
            await self._pull.stop()
        await tasks.end(self._task, self._mending)

    async def _ensure(self) -> None:
        config = {
            "name": _CONSUMER,
            "durable_name": _CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": int(_WAIT * 1e9),
            # One at a time, over all replicas: the events of a tenant keep their order.
            "max_ack_pending": 1,
            "filter_subjects": ["$KV.tenants.>"],
        }
        await js.ensure_consumer(self._bus, _STREAM, config)

    async def _mend(self) -> None:
        """Make the consumer again where it is gone; where NATS was only away nothing changes."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            try:
                await self._ensure()
            except (Rejection, JetStreamError) as error:
                log.warning("consumer of tenants' events not at hand", why=str(error))
            await asyncio.sleep(_WAIT)

    async def _run(self) -> None:
        while True:
            message = await self._queue.get()
            verdict = b"+ACK"
            try:
                await self._publish(message)
            except msgspec.MsgspecError as error:
                log.error("a tenant's record is unreadable", key=message.subject, why=str(error))
            except (Rejection, JetStreamError) as error:
                log.warning("event not published yet", key=message.subject, why=str(error))
                verdict = b'-NAK {"delay": 1000000000}'
            with contextlib.suppress(Rejection):
                await self._bus.publish(message.reply, verdict)
            if self._pull is not None:
                self._pull.wake()

    async def _publish(self, message: Message) -> None:
        if message.headers and "KV-Operation" in message.headers:
            return
        tenant = _decode(message.data)
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
