"""One request under way at a time, in short blocks of variants in random order: a process.

python -m benchmarks.pairs

Reads a job (:class:`Job`, a line of JSON) and answers with the median latency of each block. In
each repetition every variant has one block, so what changes slowly changes all of them alike, and
the difference of two of a repetition is a pair.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from statistics import median

import msgspec
import nats
import uvloop
from nats.aio.client import Client

from benchmarks.client import Stream

WARM = 3
"""Requests at the start of a block that do not count: caches have another variant's code."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Which variants, and how many of what."""

    variants: list[Stream]
    repetitions: int
    requests: int
    """In a block."""
    seed: int = 1


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The medians of all blocks, seconds, by variant and repetition."""

    medians: dict[str, list[float]]


async def work(job: Job) -> Done:
    """All blocks; the first repetition is a warm-up and not counted."""
    rng, clients = random.Random(job.seed), dict[tuple[str, str], Client]()
    for each in job.variants:
        if (place := (each.url, each.creds)) not in clients:
            clients[place] = await nats.connect(
                each.url, user_credentials=each.creds or None, inbox_prefix=each.inbox
            )
    done = Done(medians={each.name: [] for each in job.variants})
    for number in range(job.repetitions + 1):
        for each in rng.sample(job.variants, len(job.variants)):
            took = await block(clients[each.url, each.creds], each, job.requests)
            if number:
                done.medians[each.name].append(took)
    for client in clients.values():
        await client.close()
    return done


async def block(client: Client, variant: Stream, requests: int) -> float:
    """The median of so many requests, one after another, seconds."""
    body, latencies = variant.body.encode(), []
    for number in range(WARM + requests):
        headers = dict(variant.headers) or None
        began = time.perf_counter()
        answer = await client.request(variant.subject, body, timeout=10, headers=headers)
        took = time.perf_counter() - began
        if answer.headers and "Nats-Service-Error-Code" in answer.headers:
            raise RuntimeError(f"{variant.name}: refused: {answer.data!r}")
        if number >= WARM:
            latencies.append(took)
    return median(latencies)


async def main() -> None:
    """Serve jobs until the input ends."""
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        done = await work(msgspec.json.decode(line, type=Job))
        print(msgspec.json.encode(done).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
