"""nats-py's own services framework (`nats.micro`): one endpoint.

python -m benchmarks.peers.micro URL
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import nats
import nats.micro
import uvloop
from nats.micro.request import Request

from benchmarks.echo import Echo

decode = msgspec.json.Decoder(Echo).decode


async def echo(request: Request) -> None:
    """Answer with the same."""
    await request.respond(msgspec.json.encode(decode(request.data)))


async def main(url: str) -> None:
    """Serve until the process is ended."""
    client = await nats.connect(url)
    service = await nats.micro.add_service(client, name="bench", version="1.0.0")
    await service.add_endpoint(name="echo", subject="micro.*.bench.echo", handler=echo)
    await client.flush()
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
