"""A real server and connections to it, for the tests of the bus."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil

from tenantry.bus import Bucket, Bus, Message
from tenantry.bus import jetstream as js
from tenantry.operator import OperatorHome
from tenantry.streams import bucket_config
from tests.mesh import root_creds
from tests.servers import NatsBackend

T = TypeVar("T")
_numbers = itertools.count(1)


class Station:
    """Opens connections and closes them at the end of the test."""

    def __init__(self, backend: NatsBackend) -> None:
        self.backend = backend
        self.home = OperatorHome.load(backend.home)
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        return self.backend.url

    async def __aenter__(self) -> Station:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def connect(
        self, role: str = "root", *services: str, creds: Path | None = None, **options: Any
    ) -> Bus:
        """A connection in a role; `root` is none of the mesh's, it may do everything."""
        creds = creds or self.creds(role, *services)
        bus = await Bus.connect(self.url, creds=creds, name=f"test-{role}", **options)
        self._stack.push_async_callback(bus.close)
        return bus

    def creds(self, role: str, *services: str) -> Path:
        """The credentials of a role, those of `service` for these services."""
        if role == "root":
            return root_creds(self.home, self.home.path)
        return self.home.service_creds(services) if services else self.home.creds_path(role)

    async def bucket(self, bus: Bus, kind: type[T], *, history: int = 5) -> Bucket[T]:
        """A fresh bucket."""
        name = fresh("bucket")
        await js.ensure_stream(bus, bucket_config(name, history=history))
        return Bucket(bus, name, kind)

    async def kill(self) -> None:
        await asyncio.to_thread(self.backend.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self.backend.start)


def fresh(word: str = "test") -> str:
    """A token that no other test uses."""
    return f"{word}{next(_numbers)}"


async def stream(bus: Bus, count: int, **options: object) -> str:
    """A stream with so many messages on `<name>.0` and `<name>.1` in turn."""
    name = fresh("stream")
    await js.ensure_stream(
        bus, {"name": name, "subjects": [f"{name}.>"], "allow_direct": True, **options}
    )
    for each in range(count):
        await js.store(bus, f"{name}.{each % 2}", b"x", headers={"number": str(each)})
    return name


def open_to(url: str) -> bool:
    """Whether this process has a connection there."""
    port = urlsplit(url).port
    opened = psutil.Process().net_connections()
    return any(each.raddr.port == port for each in opened if each.raddr)


async def until(check: Callable[[], object], *, within: float = 10.0) -> None:
    """Return when `check` holds; raises AssertionError when it does not in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not check():
        if loop.time() > end:
            raise AssertionError(f"not within {within:g} s")
        await asyncio.sleep(0.01)


class Heard:
    """A callback that keeps what it hears."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [message.data for message in self.messages]

    async def reach(self, count: int) -> list[bytes]:
        """The bodies, once there are so many."""
        await until(lambda: len(self.messages) >= count)
        return self.bodies


async def echo(bus: Bus) -> str:
    """Something that answers with what it is asked; returns its subject."""
    subject = fresh("echo")

    async def answer(message: Message) -> None:
        await bus.answer(message, message.data)

    await bus.subscribe(subject, answer)
    return subject
