"""Stored messages of many tenants at a fixed rate, or of one as quickly as they are taken.

python -m benchmarks.sender URL CREDS

Reads one job a line (JSON of :class:`Job`) from stdin. A job with a `count` is answered with a
line when all of it is stored. Any other one goes on until the next line, which is empty, and is
answered then. The answer is :class:`Sent`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks import machine
from benchmarks.mesh import python
from benchmarks.noted import Note
from benchmarks.parts import Parts

_IN_FLIGHT = 500
_PATIENCE = 30.0
"""Seconds that acknowledgements are waited for at the end."""
_AGAIN = 0.1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: `count` messages as quickly as they are taken, or at a `rate` each second."""

    tenants: tuple[str, ...]
    rate: float = 0.0
    count: int = 0
    pause: float = 0.0
    """What each handler waits, seconds."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job."""

    sent: int
    stored: int
    why: str = ""
    """What the last message was refused for."""


class Sender:
    """Publishes notes and counts what was stored."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Event] = {}
        self._why = ""
        self._stored = self._sent = 0

    async def start(self) -> None:
        """Listen to what is answered."""
        await self._client.subscribe("_INBOX.*.sender.*", cb=self._answered, pending_msgs_limit=-1)

    async def _answered(self, message: Msg) -> None:
        done = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if done is None:
            return
        headers = message.headers or {}
        error = headers.get("Nats-Service-Error-Code") or headers.get("Status")
        if error or b'"error"' in message.data:
            self._why = f"{error} {message.data.decode()}"
        else:
            self._stored += 1
        done.set()

    async def send(self, tenant: str, pause: float, due: float = 0.0) -> asyncio.Event:
        """Publish a note; what is returned is set when it is answered."""
        number, done = next(self._numbers), asyncio.Event()
        note = Note(number, due or time.monotonic(), pause)
        self._waiting[str(number)] = done
        self._sent += 1
        await self._client.publish(
            f"tenant.{tenant}.noted.take",
            msgspec.json.encode(note),
            reply=f"_INBOX.{tenant}.sender.{number}",
        )
        return done

    async def fill(self, job: Job) -> Sent:
        """Send so many; some are under way at any time."""
        self._stored = self._sent = 0
        left = iter(range(job.count))

        async def some() -> None:
            for number in left:
                tenant = job.tenants[number % len(job.tenants)]
                await (await self.send(tenant, job.pause)).wait()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_IN_FLIGHT, job.count)):
                group.create_task(some())
        return self._sum()

    async def go_on(self, job: Job, told: asyncio.Future[str]) -> Sent:
        """Send at a rate until told to stop: random tenants, at equal distances in time."""
        self._stored = self._sent = 0
        rng, begin = random.Random(1), time.monotonic()
        for turn in itertools.count():
            due = begin + turn / job.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if told.done():
                break
            await self.send(rng.choice(job.tenants), job.pause, due)
        end = time.monotonic() + _PATIENCE
        while self._waiting and time.monotonic() < end:
            await asyncio.sleep(_AGAIN)
        return self._sum()

    def _sum(self) -> Sent:
        return Sent(sent=self._sent, stored=self._stored, why=self._why)


class Load:
    """A process that sends, from the side that gives it jobs."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    async def fill(self, tenant: str, count: int, *, pause: float = 0.0) -> Sent:
        """Store so many messages of a tenant."""
        self._tell(msgspec.json.encode(Job(tenants=(tenant,), count=count, pause=pause)))
        return await self._answer()

    async def warm_up(self, tenant: str) -> None:
        """Send a message until one is stored: routers hear of an action a moment later."""
        async with asyncio.timeout(_PATIENCE):
            while not (await self.fill(tenant, 1)).stored:
                await asyncio.sleep(_AGAIN)

    def begin(self, tenants: Sequence[str], rate: float, *, pause: float = 0.0) -> None:
        """Begin to send so many messages a second, of all tenants together."""
        self._tell(msgspec.json.encode(Job(tenants=tuple(tenants), rate=rate, pause=pause)))

    async def end(self) -> Sent:
        """End what was begun."""
        self._tell(b"")
        return await self._answer()

    def _tell(self, line: bytes) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(line + b"\n")

    async def _answer(self) -> Sent:
        assert self._child.stdout is not None
        async with asyncio.timeout(300):
            return msgspec.json.decode(await self._child.stdout.readline(), type=Sent)


@asynccontextmanager
async def sender(found: Parts) -> AsyncIterator[Load]:
    """A process that sends through the router, on the generators' cores."""
    arguments = (found.url, str(found.anybody()))
    async with python("benchmarks.sender", *arguments, cores=machine.LOAD_CORES) as child:
        yield Load(child)


async def main(url: str, creds: str) -> None:
    """Serve jobs until the input ends."""
    client = await nats.connect(
        url, user_credentials=creds, inbox_prefix="_INBOX.sender", pending_size=1 << 24
    )
    sender, loop = Sender(client), asyncio.get_running_loop()
    await sender.start()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        job = msgspec.json.decode(line, type=Job)
        if job.count:
            sent = await sender.fill(job)
        else:
            sent = await sender.go_on(job, loop.run_in_executor(None, sys.stdin.readline))
        print(msgspec.json.encode(sent).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
