"""Two hops by the mesh's own client, with and without a tenant context between them.

python -m benchmarks.carry forward|respond URL SEED

`plain` goes on as it came. In `carried` the forwarder puts a trace and a signed context into the
headers, as a router does, and the responder reads both and verifies the context, as a worker does:
what is between the two is propagation and validation, and nothing else of the mesh.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec
import uvloop

from benchmarks import hops
from benchmarks.echo import Echo
from tenantry.bus import Bus, Message
from tenantry.context.token import KeyRing
from tenantry.wire import headers, trace

PLAIN, CARRIED = "plain", "carried"


async def forward(bus: Bus, seed: bytes) -> None:
    """Send on; the reply goes straight to the asker."""
    token = hops.mint(seed)

    def plain(message: Message) -> None:
        bus.post(_further(message), message.data, reply=message.reply)

    def carried(message: Message) -> None:
        fields = {headers.CONTEXT: token}
        trace.new().inject(fields)
        bus.post(_further(message), message.data, reply=message.reply, headers=fields)

    await bus.listen(f"carry.{PLAIN}.*.bench.echo", plain)
    await bus.listen(f"carry.{CARRIED}.*.bench.echo", carried)


async def respond(bus: Bus, keys: KeyRing) -> None:
    """Answer with the same."""
    decode = msgspec.json.Decoder(Echo).decode

    def plain(message: Message) -> None:
        bus.post(message.reply, msgspec.json.encode(decode(message.data)))

    def carried(message: Message) -> None:
        fields = message.headers or {}
        tenant = message.subject.split(".", 3)[2]
        keys.verify(fields.get(headers.CONTEXT), tenant, time.time())
        if trace.extract(fields) is None:
            raise RuntimeError("the trace is lost")
        plain(message)

    await bus.listen(f"onward.{PLAIN}.*.bench.echo", plain)
    await bus.listen(f"onward.{CARRIED}.*.bench.echo", carried)


def _further(message: Message) -> str:
    return "onward" + message.subject.removeprefix("carry")


async def main(role: str, url: str, seed: str) -> None:
    """Serve until the process is ended."""
    bus = await Bus.connect(url, name=role)
    if role == "forward":
        await forward(bus, bytes.fromhex(seed))
    else:
        await respond(bus, hops.ring(bytes.fromhex(seed)))
    await bus.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
