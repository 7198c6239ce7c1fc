"""The floor of handlers with state: nats-py alone, each tenant's messages one after another.

python -m benchmarks.peers.keyed one|two URL STREAM DURABLE SUBJECT CREDS INBOX

`one` reads and writes a key of a KV bucket; `two` writes a second key besides and publishes an
event. Nothing holds the writes together: a crash between them leaves some of them, and a message
that comes again is counted again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable

import msgspec
import nats
import uvloop
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, KeyValueConfig
from nats.js.client import JetStreamContext
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from benchmarks.echo import Echo
from benchmarks.peers.meter import Meter

BATCH = 500
"""Messages of one fetch."""


class Worker:
    """Works off messages with state in a bucket."""

    def __init__(self, kind: str, js: JetStreamContext, state: KeyValue) -> None:
        self._two = kind == "two"
        self._kind = kind
        self._js = js
        self._state = state
        self._decode = msgspec.json.Decoder(Echo).decode
        self._meter = Meter()

    async def work(self, messages: Iterable[Msg]) -> None:
        """Handle the messages of one tenant."""
        for message in messages:
            tenant = message.subject.split(".")[2]
            number = await self._count(f"{tenant}.{self._kind}")
            if self._two:
                body = b'{"number":%d}' % number
                await self._state.put(f"{tenant}.copy", body)
                headers = {"Nats-Msg-Id": f"bare-{message.metadata.sequence.stream}"}
                await self._js.publish(f"tenant.{tenant}.bench.moved", body, headers=headers)
            self._meter.take(self._decode(message.data))
            await message.ack()

    async def _count(self, key: str) -> int:
        try:
            entry = await self._state.get(key)
        except KeyNotFoundError:
            await self._state.create(key, b"1")
            return 1
        number = int(entry.value or b"0") + 1
        await self._state.update(key, b"%d" % number, entry.revision)
        return number


async def main(
    kind: str, url: str, stream: str, durable: str, subject: str, creds: str, inbox: str
) -> None:
    """Work off the stream until the process is ended."""
    client = await nats.connect(url, user_credentials=creds, inbox_prefix=inbox)
    js = client.jetstream()
    state = await js.create_key_value(KeyValueConfig(bucket="bench", history=8, direct=True))
    config = ConsumerConfig(durable_name=durable, filter_subject=subject, max_ack_pending=4 * BATCH)
    await js.add_consumer(stream, config)
    pulled = await js.pull_subscribe_bind(durable, stream)
    worker = Worker(kind, js, state)
    print("ready", flush=True)
    while True:
        with contextlib.suppress(TimeoutError):
            tenants: dict[str, list[Msg]] = {}
            for message in await pulled.fetch(BATCH, timeout=5):
                tenants.setdefault(message.subject.split(".")[2], []).append(message)
            await asyncio.gather(*map(worker.work, tenants.values()))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
