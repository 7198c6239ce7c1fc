"""The counter-proof: what a decent engineer writes by hand on nats-py, without the mesh.

A durable pull consumer for each service that all replicas share, explicit acks, retries with a
delay, dead letters after the last try, state by compare-and-set, effects made idempotent by the
message's id, events under ids that repeat. What it lacks is what is hard: order.

    python -m chaos.plain --url nats://127.0.0.1:4222
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal

import msgspec
import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from chaos.book import TRIES, Book, Count, Done, Row, Task

_BATCH = 20
_ACTIONS = {"chaos": "do", "echo": "done"}


class Replica:
    """One replica: reads both services' consumers."""

    def __init__(self, client: Client) -> None:
        self._js: JetStreamContext = client.jetstream()

    async def run(self) -> None:
        """Read until cancelled."""
        self._kv: KeyValue = await self._js.key_value("state")
        await asyncio.gather(*(self._read(service) for service in _ACTIONS))

    async def _read(self, service: str) -> None:
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=10.0, max_deliver=-1)
        reader = await self._js.pull_subscribe(
            f"journal.*.*.chaos.{_ACTIONS[service]}", service, stream="JOURNAL", config=config
        )
        while True:
            try:
                messages = await reader.fetch(_BATCH, timeout=2.0)
            except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
                await asyncio.sleep(0.1)
                continue
            await asyncio.gather(*(self._settle(service, message) for message in messages))

    async def _settle(self, service: str, message: Msg) -> None:
        tries = message.metadata.num_delivered
        tenant = message.subject.split(".")[2]
        try:
            try:
                await self._handle(service, tenant, message, tries)
            except ValueError:  # no retry helps
                tries = TRIES
                raise
        except Exception as error:  # noqa: BLE001  (whatever it is, it is tried again)
            await self._failed(service, tenant, message, tries, error)
        else:
            await self._say(message, None)

    async def _handle(self, service: str, tenant: str, message: Msg, tries: int) -> None:
        name = (message.headers or {}).get("Nats-Msg-Id", "")
        if service == "echo":
            await self._write(service, tenant, msgspec.json.decode(message.data, type=Done), name)
            return
        task = msgspec.json.decode(message.data, type=Task)
        if task.kind == "reject":
            raise ValueError("rejected on purpose")
        if task.kind == "poison" or tries <= task.fails:
            raise RuntimeError("failed on purpose")
        if task.kind == "slow":
            await asyncio.sleep(task.seconds)
        await self._write(service, tenant, task, name)
        body = Done(tenant=task.tenant, producer=task.producer, sequence=task.sequence)
        await self._js.publish(
            f"tenant.{tenant}.chaos.done",
            msgspec.json.encode(body),
            headers={"Nats-Msg-Id": f"done.{name}"},
        )

    async def _write(self, service: str, tenant: str, cause: Task | Done, name: str) -> None:
        key = f"{tenant}.{service}.{_ACTIONS[service]}."
        try:
            entry = await self._kv.get(key + "book")
        except KeyNotFoundError:
            book, revision = Book(), 0
        else:
            book = msgspec.json.decode(entry.value or b"", type=Book)
            revision = entry.revision or 0
        if book.has(name):
            return
        if book.full:
            page, rows, book = book.put_away()
            await self._kv.put(key + page, msgspec.json.encode(rows))
        row = Row(cause.tenant, cause.producer, cause.sequence, name, os.getpid())
        await self._kv.update(key + "book", msgspec.json.encode(book.add(row)), revision)
        await self._count(key + "count")

    async def _count(self, key: str) -> None:
        """Count one more: two writes that belong together, without anything that binds them."""
        try:
            entry = await self._kv.get(key)
        except KeyNotFoundError:
            await self._kv.create(key, msgspec.json.encode(Count(1)))
            return
        count = msgspec.json.decode(entry.value or b"", type=Count)
        await self._kv.update(key, msgspec.json.encode(Count(count.n + 1)), entry.revision)

    async def _failed(
        self, service: str, tenant: str, message: Msg, tries: int, error: Exception
    ) -> None:
        if tries < TRIES:
            await self._say(message, min(2.0, 0.2 * 2**tries))
            return
        seq = str(message.metadata.sequence.stream)
        headers = {"Tenant-Dead-Seq": seq, "Tenant-Dead-Reason": type(error).__name__}
        try:
            await self._js.publish(f"dead.{tenant}.{service}.{seq}", message.data, headers=headers)
            await self._say(message, None)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
            await self._say(message, 1.0)

    async def _say(self, message: Msg, again: float | None) -> None:
        """Acknowledge, or ask for it again after some seconds."""
        try:
            await (message.ack() if again is None else message.nak(delay=again))
        except nats.errors.Error:
            return  # it comes again


async def main() -> None:
    """Run one replica until SIGTERM."""
    parser = argparse.ArgumentParser(description="A plain worker, for chaos's counter-proof.")
    parser.add_argument("--url", required=True)
    arguments = parser.parse_args()
    client = await nats.connect(
        arguments.url, max_reconnect_attempts=-1, reconnect_time_wait=0.3, error_cb=_ignore
    )
    running = asyncio.create_task(Replica(client).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    print("ready", flush=True)
    await asyncio.wait({running})
    await client.close()


async def _ignore(_error: Exception) -> None:
    """Reconnecting is nats-py's own affair."""


if __name__ == "__main__":
    asyncio.run(main())
