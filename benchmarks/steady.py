"""Requests of other tenants at a fixed rate, by plain NATS clients in a process of their own.

python -m benchmarks.steady URL SUBJECT RATE TENANT=CREDS...

A latency counts from when its request was due, so one that could not be sent in time is not
flattered. A line on stdin ends it: it answers with [[due, latency], ...], in seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time

import nats
import uvloop

from benchmarks.history import BODY


async def main(url: str, subject: str, rate: float, *tenants: str) -> None:
    """Ask until told to stop."""
    clients = []
    for tenant, creds in (each.split("=", 1) for each in tenants):
        client = await nats.connect(url, user_credentials=creds, inbox_prefix=f"_INBOX.{tenant}")
        clients.append((client, f"tenant.{tenant}.{subject}"))
    found: list[tuple[float, float]] = []
    running: set[asyncio.Task[None]] = set()

    async def ask(turn: int, due: float) -> None:
        client, to = clients[turn % len(clients)]
        answer = await client.request(to, BODY, timeout=10)
        if answer.headers and "Nats-Service-Error-Code" in answer.headers:
            raise RuntimeError(f"refused: {answer.data!r}")
        found.append((due, time.time() - due))

    print("ready", flush=True)
    told = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    begin = time.time()
    for turn in itertools.count():
        due = begin + turn / rate
        await asyncio.sleep(max(0.0, due - time.time()))
        if told.done():
            break
        task = asyncio.create_task(ask(turn, due))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), *sys.argv[4:]))
