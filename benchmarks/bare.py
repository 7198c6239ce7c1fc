"""The floor: a forwarder and a responder in nothing but nats-py, with the same hops and headers.

python -m benchmarks.bare forward|respond URL
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import nats
import uvloop
from nats.aio.msg import Msg

from benchmarks.echo import Echo


async def main(role: str, url: str) -> None:
    """Serve until the process is ended."""
    client = await nats.connect(url)
    decode = msgspec.json.Decoder(Echo).decode

    async def forward(message: Msg) -> None:
        headers = dict(message.headers or {})
        headers["Hop"] = "1"
        await client.publish(
            "request" + message.subject[4:], message.data, reply=message.reply, headers=headers
        )

    async def respond(message: Msg) -> None:
        await client.publish(message.reply, msgspec.json.encode(decode(message.data)))

    if role == "forward":
        await client.subscribe("edge.*.*.*", queue="router", cb=forward)
    else:
        await client.subscribe("request.*.bench.echo", queue="bench", cb=respond)
    await client.flush()
    await client.flush()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
