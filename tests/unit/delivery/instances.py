"""Instances of a service that hold leases, and what they were told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from tenantry.bus import Bucket, Bus
from tenantry.bus import jetstream as js
from tenantry.delivery.leases import BUCKET, Leases
from tenantry.errors import JetStreamError
from tenantry.messages.checkpoints import Lease
from tenantry.streams import bucket_config
from tests.unit.bus.station import fresh, until


class Instance:
    """One instance: its leases, and how often each of its callbacks was called."""

    def __init__(self, bus: Bus, service: str, version: str = "1.0.0") -> None:
        self.changed = 0
        self.fenced = 0
        self.renewed: list[bool] = []
        """After each renewal, whether the lease was valid."""
        self.leases = Leases(
            bus,
            service,
            version,
            fresh("instance"),
            changed=self._change,
            fenced=self._fence,
            renewed=lambda: self.renewed.append(self.leases.valid),
        )

    @property
    def id(self) -> str:
        return self.leases.id

    def knows(self, *others: Instance) -> bool:
        """Whether it takes exactly these for alive, and itself."""
        return self.leases.instances().keys() == {each.id for each in (self, *others)}

    async def renews(self, times: int = 1) -> None:
        """Return when it has renewed its lease so many times more."""
        before = len(self.renewed)
        await until(lambda: len(self.renewed) >= before + times)

    def _change(self) -> None:
        self.changed += 1

    def _fence(self) -> None:
        self.fenced += 1


class Instances:
    """Starts instances of one service of its own."""

    def __init__(self, bus: Bus, stack: AsyncExitStack) -> None:
        self.service = fresh("service")
        self.bus = bus
        self.bucket: Bucket[Lease] = Bucket(bus, BUCKET, Lease)
        self._stack = stack

    def key(self, lease: str) -> str:
        return f"{self.service}.{lease}"

    def make(self, bus: Bus | None = None, version: str = "1.0.0") -> Instance:
        """One that has not begun."""
        return Instance(bus or self.bus, self.service, version)

    async def start(self, bus: Bus | None = None, version: str = "1.0.0") -> Instance:
        """One that holds a lease."""
        instance = self.make(bus, version)
        self._stack.push_async_callback(instance.leases.stop)
        await instance.leases.start()
        return instance

    async def lease(self, name: str, *, renewed: int = 1) -> int:
        """A lease that nobody renews; returns its revision."""
        lease = Lease(service=self.service, version="1.0.0", renewed=renewed)
        return await self.bucket.put(self.key(name), lease)

    async def there(self, lease: str) -> bool:
        """Whether the lease is in the bucket."""
        return await self.bucket.get(self.key(lease)) is not None

    async def say(self, name: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Let a write be heard that the server refuses."""
        fields = {**(headers or {}), "Nats-Expected-Last-Subject-Sequence": "999999999"}
        try:
            await js.store(self.bus, f"$KV.{BUCKET}.{self.key(name)}", body, headers=fields)
        except JetStreamError:
            return
        raise AssertionError("the server has taken it")

    async def say_renewed(self, name: str, renewed: int) -> None:
        """Let a renewal be heard that the server refuses."""
        lease = Lease(service=self.service, version="1.0.0", renewed=renewed)
        await self.say(name, msgspec.json.encode(lease))


@asynccontextmanager
async def instances(bus: Bus) -> AsyncIterator[Instances]:
    """A fresh service's instances, which end with the block."""
    await js.ensure_stream(bus, bucket_config(BUCKET))
    async with AsyncExitStack() as stack:
        yield Instances(bus, stack)
