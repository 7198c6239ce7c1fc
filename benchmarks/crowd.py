"""A service that can do about 1,600 requests a second: 16 at once, each waits 10 ms."""

from __future__ import annotations

import asyncio
import sys

import msgspec
import nats
import uvloop
from nats.aio.msg import Msg

from benchmarks.echo import Echo
from tenantry import Context, Service

SLOTS = 16
WORK = 0.01
"""What a handler waits for its database, say, seconds."""

service = Service("crowd", version="1.0.0", concurrency=SLOTS)


@service.request("serve", public=True)
async def serve(_ctx: Context, message: Echo) -> Echo:
    """Answer with the same, a little later."""
    await asyncio.sleep(WORK)
    return message


async def plain(url: str) -> None:
    """The same in nothing but nats-py: a queue group, a semaphore and a task for each message."""
    client, slots = await nats.connect(url), asyncio.Semaphore(SLOTS)
    decode, running = msgspec.json.Decoder(Echo).decode, set[asyncio.Task[None]]()

    async def handle(message: Msg) -> None:
        async with slots:
            request = decode(message.data)
            await asyncio.sleep(WORK)
            await message.respond(msgspec.json.encode(request))

    async def take(message: Msg) -> None:
        task = asyncio.create_task(handle(message))
        running.add(task)
        task.add_done_callback(running.discard)

    await client.subscribe("tenant.*.crowd.serve", queue="crowd", cb=take, pending_msgs_limit=-1)
    await client.flush()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(plain(sys.argv[1]))
