"""The floor: nothing but nats-py, with the same hops and headers.

python -m benchmarks.peers.bare alone|forward|respond URL
python -m benchmarks.peers.bare pull URL STREAM DURABLE [SUBJECT CREDS INBOX]

`alone` answers clients itself; `forward` and `respond` are the two hops; `pull` works off a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import msgspec
import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from benchmarks.echo import Echo
from benchmarks.peers.meter import Meter

BATCH = 500
"""Messages of one fetch: more bring nothing."""


async def respond(client: Client, subject: str) -> None:
    """Answer with the same."""
    decode = msgspec.json.Decoder(Echo).decode

    async def echo(message: Msg) -> None:
        await client.publish(message.reply, msgspec.json.encode(decode(message.data)))

    await client.subscribe(subject, queue="bench", cb=echo)


async def forward(client: Client) -> None:
    """Send on with one header more; the reply goes straight to the asker."""

    async def send_on(message: Msg) -> None:
        headers = dict(message.headers or {})
        headers["Hop"] = "1"
        await client.publish(
            "request" + message.subject[4:], message.data, reply=message.reply, headers=headers
        )

    await client.subscribe("edge.*.*.*", queue="router", cb=send_on)


async def pull(client: Client, stream: str, durable: str) -> None:
    """Fetch in batches and acknowledge each message."""
    decode, meter = msgspec.json.Decoder(Echo).decode, Meter()
    pulled = await client.jetstream().pull_subscribe_bind(durable, stream)
    while True:
        with contextlib.suppress(TimeoutError):
            for message in await pulled.fetch(BATCH, timeout=5):
                meter.take(decode(message.data))
                await message.ack()


async def work_off(
    url: str,
    stream: str,
    durable: str,
    subject: str | None = None,
    creds: str | None = None,
    inbox: str = "_INBOX",
) -> None:
    """Create the durable consumer, of a filter where there is one, and pull for ever."""
    client = await nats.connect(url, user_credentials=creds, inbox_prefix=inbox)
    wanted = ConsumerConfig(durable_name=durable, filter_subject=subject, max_ack_pending=4 * BATCH)
    await client.jetstream().add_consumer(stream, wanted)
    print("ready", flush=True)
    await pull(client, stream, durable)


async def main(role: str, url: str, *arguments: str) -> None:
    """Serve until the process is ended."""
    if role == "pull":
        await work_off(url, *arguments)
    client = await nats.connect(url)
    if role == "forward":
        await forward(client)
    else:
        await respond(client, f"{'alone' if role == 'alone' else 'request'}.*.bench.echo")
    await client.flush()
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
