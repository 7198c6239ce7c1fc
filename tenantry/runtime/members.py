"""Who is alive: every instance says so each second, and says when it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import msgspec
import structlog

from tenantry import tasks
from tenantry.bus import Bus, Message, Subscription
from tenantry.errors import Rejection
from tenantry.messages import Alive
from tenantry.wire.codec import encode

BEAT = 1.0
"""Seconds between two signs of life."""

SILENCE = 3.5
"""An instance that is silent for so long counts as dead, seconds."""

log = structlog.get_logger("tenantry.members")
_decode = msgspec.json.Decoder(Alive).decode


def alive_subject(service: str) -> str:
    """Where instances of a service say that they live."""
    return f"platform.alive.{service}"


def gone_subject(service: str) -> str:
    """Where an instance says that it leaves."""
    return f"platform.gone.{service}"


class Members:
    """The live instances of one service, or of all (`*`), as heard on the bus."""

    def __init__(
        self, bus: Bus, service: str = "*", *, changed: Callable[[str], None] | None = None
    ) -> None:
        self._bus = bus
        self._service = service
        self._changed = changed
        self._connections: dict[str, int] = {}
        self._heard: dict[str, dict[str, tuple[str, float]]] = {}
        self._last = time.monotonic()
        """When anyone was heard; who listens also hears its own instance."""
        self._subscriptions: list[Subscription] = []
        self._task: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Listen."""
        self._subscriptions = [
            await self._bus.subscribe(alive_subject(self._service), self._on_alive),
            await self._bus.subscribe(gone_subject(self._service), self._on_gone),
        ]
        self._forget = self._bus.on_reconnect(self._refresh)
        self._task = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Listen no more."""
        self._forget()
        await tasks.end(self._task)
        for subscription in self._subscriptions:
            await subscription.stop()

    def instances(self, service: str) -> dict[str, str]:
        """Version by instance id of what lives of `service`."""
        return {name: version for name, (version, _) in self._heard.get(service, {}).items()}

    def versions(self, service: str) -> frozenset[str]:
        """The versions of `service` that live."""
        return frozenset(version for version, _ in self._heard.get(service, {}).values())

    def hear(self, alive: Alive) -> None:
        """Take a sign of life."""
        instances = self._heard.setdefault(alive.service, {})
        new = alive.instance not in instances
        former = self._connections.get(alive.instance, 0)
        self._connections[alive.instance] = max(former, alive.connection)
        self._last = time.monotonic()
        instances[alive.instance] = (alive.version, self._last)
        if new:
            self._tell(alive.service)

    def disconnected(self, name: str) -> None:
        """NATS says that the connection `<service>/<instance>[~<number>]` has ended."""
        _, slash, rest = name.rpartition("/")
        instance, _, number = rest.partition("~")
        ended = int(number) if number.isdecimal() else 0
        if slash and ended >= self._connections.get(instance, 0):
            self.lose(instance)

    def lose(self, instance: str, service: str | None = None) -> None:
        """Forget an instance at once, in one service or in all."""
        self._connections.pop(instance, None)
        for name in [service] if service is not None else list(self._heard):
            if self._heard.get(name, {}).pop(instance, None) is not None:
                self._tell(name)

    async def _on_alive(self, message: Message) -> None:
        self.hear(_decode(message.data))

    async def _on_gone(self, message: Message) -> None:
        gone = _decode(message.data)
        self.lose(gone.instance, gone.service)

    async def _sweep(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(BEAT / 2)
            now = time.monotonic()
            if not self._bus.connected or now - min(last, self._last) > BEAT * 2:
                self._refresh()  # it is we who were deaf, or NATS is away: not they are silent
            last = now
            for service, instances in list(self._heard.items()):
                for instance, (_, heard) in list(instances.items()):
                    if now - heard > SILENCE:
                        log.warning("instance silent", service=service, instance=instance)
                        self.lose(instance, service)

    def _refresh(self) -> None:
        now = time.monotonic()
        for instances in self._heard.values():
            for instance, (version, _) in list(instances.items()):
                instances[instance] = (version, now)

    def _tell(self, service: str) -> None:
        if self._changed is not None:
            self._changed(service)


class Heartbeat:
    """Says each second that the instances of this process live."""

    def __init__(self, bus: Bus, lives: list[Alive]) -> None:
        self._bus = bus
        self._lives = lives
        self._again = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Say it now and from now on; when this returns, those that may leave for it can."""
        await self._say()
        await self._bus.flush()
        self._forget = self._bus.on_reconnect(self._again.set)
        self._task = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Say that they leave."""
        self._forget()
        await tasks.end(self._task)
        if self._bus.connected:
            for life in self._lives:
                await self._bus.publish(gone_subject(life.service), encode(life))
            await self._bus.flush()

    async def _beat(self) -> None:
        while True:
            if self._bus.connected:
                with contextlib.suppress(Rejection):  # lost just now: said when it is back
                    await self._say()
            self._again.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._again.wait()

    async def _say(self) -> None:
        for life in self._lives:
            now = msgspec.structs.replace(life, connection=self._bus.renewals)
            await self._bus.publish(alive_subject(life.service), encode(now))
