"""The floor of a replay: nats-py's ordered consumer of the same messages, with an idle callback.

python -m benchmarks.ordered URL CREDS INBOX STREAM SUBJECT COUNT

Each line on stdin is one reading from the start; it answers with its seconds and CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import nats
import uvloop
from nats.aio.msg import Msg


async def main(url: str, creds: str, inbox: str, stream: str, subject: str, messages: str) -> None:
    """Read as often as asked, until stdin ends."""
    client = await nats.connect(url, user_credentials=creds, inbox_prefix=inbox)
    js = client.jetstream()
    loop, count = asyncio.get_running_loop(), int(messages)
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        seen, done = 0, asyncio.Event()

        async def take(_: Msg) -> None:
            nonlocal seen
            seen += 1
            if seen == count:
                done.set()  # noqa: B023  (it ends with this round)

        began, cpu = time.perf_counter(), time.process_time()
        reading = await js.subscribe(subject, stream=stream, ordered_consumer=True, cb=take)
        await done.wait()
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
        await reading.unsubscribe()
        print(json.dumps([seconds, used]), flush=True)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
