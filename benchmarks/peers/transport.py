"""Explicit acknowledgements over the mesh's own transport, without anything else of the mesh.

python -m benchmarks.peers.transport URL STREAM DURABLE SUBJECT CREDS INBOX
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop

from benchmarks.echo import Echo
from benchmarks.peers.meter import Meter
from tenantry.bus import Bus, Message
from tenantry.bus.jetstream import api

BATCH = 500
"""Messages of one pull; the next is sent when half of them have come."""
_EXPIRES = 5_000_000_000
"""Nanoseconds that the server keeps a pull open."""


class Pulls:
    """Keeps messages coming from a durable consumer and acknowledges each."""

    def __init__(self, bus: Bus, stream: str, durable: str) -> None:
        self._bus = bus
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._reply = f"{bus.inbox}.pull"
        self._asked = 0
        self._decode = msgspec.json.Decoder(Echo).decode
        self._meter = Meter()

    async def start(self) -> None:
        """Begin to read."""
        await self._bus.listen(self._reply, self._take)
        self._ask()

    def _ask(self) -> None:
        ask = {"batch": BATCH, "expires": _EXPIRES}
        self._bus.post(self._next, msgspec.json.encode(ask), reply=self._reply)
        self._asked += BATCH

    def _take(self, message: Message) -> None:
        if message.subject == self._reply:  # a pull has ended
            self._asked = 0
        else:
            self._asked -= 1
            self._meter.take(self._decode(message.data))
            self._bus.post(message.reply, b"+ACK")
        if self._asked <= BATCH // 2:
            self._ask()


async def main(url: str, stream: str, durable: str, subject: str, creds: str, inbox: str) -> None:
    """Work off the stream until the process is ended."""
    bus = await Bus.connect(url, creds=creds, inbox=inbox)
    config = {
        "durable_name": durable,
        "ack_policy": "explicit",
        "filter_subject": subject,
        "max_ack_pending": 4 * BATCH,
    }
    wanted = {"stream_name": stream, "config": config}
    await api(bus, f"CONSUMER.CREATE.{stream}.{durable}.{subject}", wanted)
    await Pulls(bus, stream, durable).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
