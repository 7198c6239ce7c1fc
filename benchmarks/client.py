"""Load by plain NATS clients in a process of their own, at times that were fixed before.

python -m benchmarks.client

Reads one job a line (JSON of :class:`Job`) and answers each with one line (:class:`Done`). The
latency of a message counts from when it was due, so a server that stalls is not spared what
piled up meanwhile (open loop); with `in_flight` instead of a rate, each answer makes room for the
next message (closed loop: a ceiling, not a latency). Histograms are HdrHistograms, microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import nats
import uvloop
from hdrh.histogram import HdrHistogram
from nats.aio.client import Client
from nats.aio.msg import Msg

HIGHEST = 60_000_000
"""The longest latency told apart, µs."""
_GRAIN = 0.002
"""How late a timer may be: more than that, and the generator is behind."""
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
"""What a client that traces sends."""


_DRAWS = 1 << 18
"""Draws of a distribution, made before the time runs; then they come again."""


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """The tenants that one client speaks for, by number."""

    tenants: int
    spread: Literal["uniform", "zipf", "once"] = "uniform"
    """Drawn evenly, by rank to the power of `-skew`, or each once and in order: then it ends."""
    skew: float = 1.1
    first: int = 0
    """The number of the first of them."""

    def order(self, seed: str) -> Iterator[int]:
        """Whose message is next."""
        last = self.first + self.tenants
        if self.spread == "once":
            return iter(range(self.first, last))
        rng = random.Random(seed)
        weights = None
        if self.spread == "zipf":
            weights = [(rank + 1) ** -self.skew for rank in range(self.tenants)]
        return itertools.cycle(rng.choices(range(self.first, last), weights, k=_DRAWS))


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One client's messages."""

    name: str
    url: str
    subject: str
    """With a crowd, `{tenant}` stands for one of them."""
    body: str
    creds: str = ""
    inbox: str = "_INBOX"
    """With a crowd, `{tenant}` stands for the tenant."""
    headers: dict[str, str] = {}
    """Besides a trace's."""
    rate: float = 0.0
    """Messages a second, at random times (Poisson); 0 for a closed loop."""
    in_flight: int = 0
    """Messages under way in a closed loop."""
    crowd: Crowd | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, and for how long, seconds."""

    streams: list[Stream]
    seconds: float


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one stream."""

    name: str
    sent: int
    seconds: float
    """From the first message to the last answer that counts."""
    outcomes: dict[str, int]
    """Answers by code; `none` for those that did not come in time."""
    histogram: str
    """Of the good answers."""
    steady: int
    """Good answers in the second half of the time."""
    behind: int
    """Messages that the generator itself sent too late."""

    @property
    def good(self) -> int:
        """Good answers."""
        return self.outcomes.get("200", 0)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds

    def latency(self, percentile: float) -> float:
        """Of the good answers, seconds."""
        return float(decode(self.histogram).get_value_at_percentile(percentile)) / 1e6


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a job."""

    streams: list[Answers]
    cpu: float
    """What this process spent, CPU seconds."""


def tenant_name(number: int) -> str:
    """The id of one of a crowd."""
    return f"tenant-{number:06d}"


def decode(histogram: str) -> HdrHistogram:
    """A histogram as it was measured."""
    return HdrHistogram.decode(histogram)


@dataclass(slots=True)
class _Flow:
    """One stream under way."""

    stream: Stream
    client: Client
    places: Iterator[tuple[str, str]]
    """Where each message goes, and the beginning of where its answer comes."""
    headers: dict[str, str]
    due: dict[str, float] = field(default_factory=dict)
    """When each message without an answer was due."""
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    sent: int = 0
    behind: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    histogram: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, HIGHEST, 3))
    steady: int = 0
    half: float = 0.0
    until: float = 0.0
    last: float = 0.0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where there is nobody left to send for."""

    async def send(self, due: float) -> None:
        """One message that was to be sent then."""
        place = next(self.places, None)
        if place is None:
            self.until = min(self.until, due)
            self.over.set()
            return
        token = str(next(self.numbers))
        self.due[token] = due
        self.sent += 1
        await self.client.publish(
            place[0],
            self.stream.body.encode(),
            reply=f"{place[1]}.{token}",
            headers=dict(self.headers),
        )

    async def answered(self, message: Msg) -> None:
        """Count one answer; in a closed loop, send the next."""
        due = self.due.pop(message.subject.rpartition(".")[2], None)
        if due is None:
            return
        self.last = now = time.perf_counter()
        headers = message.headers or {}
        code = headers.get("Nats-Service-Error-Code") or headers.get("Status") or "200"
        self.outcomes[code] = self.outcomes.get(code, 0) + 1
        if code == "200":
            self.histogram.record_value(min(HIGHEST, max(1, int((now - due) * 1e6))))
            self.steady += self.half <= now < self.until
        if self.stream.in_flight and now < self.until:
            await self.send(now)
        if not self.due and now >= self.until:
            self.idle.set()

    async def run(self, seconds: float, patience: float) -> Answers:
        """Send for so long, then wait for what is under way."""
        begin = time.perf_counter()
        self.half, self.until = begin + seconds / 2, begin + seconds
        if self.stream.in_flight:
            for _ in range(self.stream.in_flight):
                await self.send(time.perf_counter())
        else:
            await self._paced(begin)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self.until - time.perf_counter())):
                await self.over.wait()
        if self.due:
            try:
                async with asyncio.timeout(patience):
                    await self.idle.wait()
            except TimeoutError:
                self.outcomes["none"] = len(self.due)
        return Answers(
            name=self.stream.name,
            sent=self.sent,
            seconds=self.last - begin if self.over.is_set() else max(seconds, self.last - begin),
            outcomes=self.outcomes,
            histogram=self.histogram.encode().decode(),
            steady=self.steady,
            behind=self.behind,
        )

    async def _paced(self, begin: float) -> None:
        rng = random.Random(self.stream.name)
        due = begin + rng.expovariate(self.stream.rate)
        while due < self.until:
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            late = (now := time.perf_counter()) - due > _GRAIN
            self.behind += late
            await self.send(due if late else now)
            due += rng.expovariate(self.stream.rate)


def _places(stream: Stream, inbox: str) -> Iterator[tuple[str, str]]:
    """Made before the time runs, so that a crowd costs the load a look-up more."""
    if (crowd := stream.crowd) is None:
        return itertools.repeat((stream.subject, inbox))
    every = {}
    for number in range(crowd.first, crowd.first + crowd.tenants):
        name = tenant_name(number)
        every[number] = (stream.subject.format(tenant=name), inbox.format(tenant=name))
    return map(every.__getitem__, crowd.order(stream.name))


async def work(job: Job, patience: float = 10.0) -> Done:
    """All streams of a job at once."""
    flows = []
    for number, stream in enumerate(job.streams):
        client = await nats.connect(
            stream.url,
            user_credentials=stream.creds or None,
            inbox_prefix=stream.inbox.partition(".{tenant}")[0],
            pending_size=1 << 24,
        )
        inbox = f"{stream.inbox}.bench{number}"
        flow = _Flow(stream, client, _places(stream, inbox), TRACE | stream.headers)
        await client.subscribe(
            f"{inbox.format(tenant='*')}.*", cb=flow.answered, pending_msgs_limit=-1
        )
        await client.flush()
        flows.append(flow)
    before = time.process_time()
    answers = await asyncio.gather(*(flow.run(job.seconds, patience) for flow in flows))
    cpu = time.process_time() - before
    for flow in flows:
        await flow.client.close()
    return Done(streams=answers, cpu=cpu)


async def main() -> None:
    """Serve jobs until the input ends."""
    loop = asyncio.get_running_loop()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        done = await work(msgspec.json.decode(line, type=Job))
        sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
        sys.stdout.flush()


class Generator:
    """A load process, from the side that gives it jobs."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    async def run(self, seconds: float, *streams: Stream) -> Done:
        """Have this done and return what came of it."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        job = Job(streams=list(streams), seconds=seconds)
        self._child.stdin.write(msgspec.json.encode(job) + b"\n")
        await self._child.stdin.drain()
        async with asyncio.timeout(seconds + 60):
            return msgspec.json.decode(await self._child.stdout.readline(), type=Done)


def body(size: int = 200) -> str:
    """The message that both sides decode: about 50 bytes and so many more."""
    return '{"sku":"A-1","quantity":2,"note":"' + "x" * size + '"}'


if __name__ == "__main__":
    uvloop.run(main())
