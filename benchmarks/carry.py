"""Two hops by the mesh's own client, with and without a tenant context between them.

python -m benchmarks.carry forward|respond URL SEED

`plain` goes on as it came. In `context` the forwarder puts a signed context into the headers, as a
router does, and the responder verifies it, as a worker does; in `traced` both do so with a trace,
too. What is between them is propagation and validation, and nothing else of the mesh.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import msgspec
import uvloop

from benchmarks import hops
from benchmarks.echo import Echo
from tenantry.bus import Bus, Message
from tenantry.context.token import KeyRing
from tenantry.wire import headers, trace

VARIANTS = ("plain", "context", "traced")


async def forward(bus: Bus, seed: bytes) -> None:
    """Send on; the reply goes straight to the asker."""
    token = hops.mint(seed)

    def plain(message: Message) -> None:
        bus.post(_further(message), message.data, reply=message.reply)

    def context(message: Message) -> None:
        fields = {headers.CONTEXT: token}
        bus.post(_further(message), message.data, reply=message.reply, headers=fields)

    def traced(message: Message) -> None:
        fields = {headers.CONTEXT: token}
        trace.new().inject(fields)
        bus.post(_further(message), message.data, reply=message.reply, headers=fields)

    await _listen(bus, "carry", plain, context, traced)


async def respond(bus: Bus, keys: KeyRing) -> None:
    """Answer with the same."""
    decode = msgspec.json.Decoder(Echo).decode

    def plain(message: Message) -> None:
        bus.post(message.reply, msgspec.json.encode(decode(message.data)))

    def context(message: Message) -> None:
        tenant = message.subject.split(".", 3)[2]
        keys.verify((message.headers or {}).get(headers.CONTEXT), tenant, time.time())
        plain(message)

    def traced(message: Message) -> None:
        if trace.extract(message.headers) is None:
            raise RuntimeError("the trace is lost")
        context(message)

    await _listen(bus, "onward", plain, context, traced)


async def _listen(bus: Bus, first: str, *listeners: Callable[[Message], None]) -> None:
    for name, listener in zip(VARIANTS, listeners, strict=True):
        await bus.listen(f"{first}.{name}.*.bench.echo", listener)


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
