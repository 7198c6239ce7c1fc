"""A service's stored messages, handled one at a time against a real server."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from tenantry import Context, Service
from tenantry.bus import Bucket, Bus
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery, StoredMessage
from tenantry.bus.kv import Record
from tenantry.bus.reading import read
from tenantry.context.fence import Fence
from tenantry.context.latest import Latest
from tenantry.context.staged import StagedState
from tenantry.context.state import BUCKET, State, prefix, redo_key
from tenantry.context.token import KeyRing, Minter, Trusted
from tenantry.runtime.audit import Audit
from tenantry.runtime.mesh import WorkerMesh
from tenantry.runtime.outbox import Outbox, Renewer
from tenantry.runtime.runner import Runner
from tenantry.runtime.stored import StoredMessages
from tenantry.streams import bucket_config
from tenantry.wire import headers
from tests.unit.bus.station import fresh
from tests.unit.core.fences import fence

Work = Callable[[Context], Awaitable[object]]
MINTER = Minter("k1", b"\1" * 32)


class Crash(BaseException):
    """The process ends here."""


class _Message:
    """A command as the journal has it."""

    data = b"{}"

    def __init__(self, tenant: str) -> None:
        self.subject = f"journal.0.{tenant}.orders.place"
        self.headers = {headers.CONTEXT: MINTER.mint(tenant, "p", "edge")}


class Handling:
    """One instance of a service, and one tenant; :meth:`again` is the next instance of it."""

    def __init__(self, bus: Bus, tenant: str, stream: str) -> None:
        self.bus = bus
        self.tenant = tenant
        self.stream = stream
        self.service = Service("orders")
        self.placed = self.service.event("placed", int)
        self.runs = 0
        """How often the handler has run."""
        self._work: Work | None = None
        ring = KeyRing()
        ring.replace({"k1": Trusted(MINTER.public_key)})
        audit, renewer = Audit(bus, "orders", "1"), Renewer(bus)
        self.outbox = Outbox(bus, renewer)
        runner = Runner(self.service, ring, WorkerMesh(bus, renewer, audit), self.outbox, audit)
        self.commit = runner.commit
        self.stored = StoredMessages(runner)

        @self.service.command("place")
        async def place(ctx: Context) -> None:
            self.runs += 1
            assert self._work is not None
            await self._work(ctx)

    @classmethod
    async def make(cls, bus: Bus, *, replicas: int = 1) -> Handling:
        """A fresh tenant, with a stream for what its messages emit."""
        await js.ensure_stream(bus, bucket_config(BUCKET, replicas=replicas))
        tenant, stream = fresh("tenant"), fresh("emitted")
        kinds = ("tenant", "schedule", "timer", "due")
        config = {
            "name": stream,
            "subjects": [f"{kind}.{tenant}.>" for kind in kinds],
            "num_replicas": replicas,
            "allow_msg_schedules": True,
            "allow_msg_ttl": True,
        }
        await js.ensure_stream(bus, config)
        return cls(bus, tenant, stream)

    def again(self) -> Handling:
        """The same tenant in an instance that remembers nothing."""
        heir = Handling(self.bus, self.tenant, self.stream)
        heir.bucket._replicated = self.bucket._replicated
        return heir

    def beside(self) -> Handling:
        """The same instance, with another message in hand."""
        other = Handling(self.bus, self.tenant, self.stream)
        other.stored._runner.commit = other.commit = self.commit
        return other

    @property
    def bucket(self) -> Latest:
        """The state as this instance reads it."""
        return self.commit.values.bucket

    def key(self, name: str) -> str:
        """The key of a name in the live state."""
        return prefix(self.tenant, "orders") + name

    async def handle(self, seq: int, work: Work, **options: Any) -> Fence:
        """Handle message `seq` by `work`; `options` are those of the fence."""
        own = fence(seq, **options)
        await self.handle_under(own, work)
        return own

    async def handle_under(self, own: Fence, work: Work) -> None:
        """Handle a message under this fence."""
        self._work = work
        delivery = Delivery(1, own.seq, time.time(), 0, 1)
        handler = self.service.handlers["place"]
        await self.stored.handle(handler, _Message(self.tenant), delivery, own)

    async def add(self, ctx: Context) -> None:
        """A handler that counts, reading what it writes."""
        entry = await ctx.state.get("count", int)
        await ctx.state.put("count", entry.value + 1 if entry else 1)

    async def add_and_tell(self, ctx: Context) -> None:
        """A handler that counts and emits the new count."""
        entry = await ctx.state.get("count", int)
        count = entry.value + 1 if entry else 1
        await ctx.state.put("count", count)
        ctx.emit(self.placed, count)

    def state(self, generation: int = 0) -> State:
        """The state as a request sees it."""
        return State(self.bus, self.tenant, "orders", fence(generation=generation, ordered=False))

    def staged(self, seq: int = 1, **options: Any) -> StagedState:
        """The state as a handler of a stored message sees it."""
        own = fence(seq, **options)
        return StagedState(self.bus, self.tenant, "orders", own, bucket=self.bucket)

    async def value(self, name: str, generation: int = 0) -> Any:
        """What is stored under a name; None for nothing."""
        entry = await self.state(generation).get(name, Any)
        return entry.value if entry is not None else None

    async def record(self, name: str, generation: int = 0) -> Record | None:
        """The record under a name, `/redo` for the redo record."""
        key = prefix(self.tenant, "orders", generation) + name
        if name == "/redo":
            key = redo_key(self.tenant, "orders", generation)
        return await Bucket(self.bus, BUCKET, bytes).read(key)

    async def emitted(self) -> list[StoredMessage]:
        """What the journal has got."""
        return [each async for each in read(self.bus, self.stream, ">")]

    async def told(self) -> list[bytes]:
        """The bodies of what the journal has got."""
        return [message.data for message in await self.emitted()]
