"""Reading a stream from one end to the other, without a consumer.

By JetStream's batched direct get (ADR-31): nothing is left behind on the server, a reader that
stops half way costs nothing, and one that lost its connection asks on from where it was.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import msgspec

from tenantry.bus.connection import Bus, Message
from tenantry.errors import Unavailable

_BATCH = 256
_BYTES = 4 * 1024**2
_WAIT = 5.0
_ATTEMPTS = 4

_NONE, _END = "404", "204"


class Found(NamedTuple):
    """One message of a stream."""

    subject: str
    seq: int
    stored: float
    """When, seconds since the epoch."""
    headers: dict[str, str]
    """Its own, and what NATS says of it (`Nats-Sequence`, …)."""
    data: bytes

    @classmethod
    def of(cls, message: Message) -> Found:
        """Read an answer of `DIRECT.GET`."""
        headers: dict[Any, str] = message.headers or {}
        at = dt.datetime.fromisoformat(headers["Nats-Time-Stamp"])
        return cls(
            headers["Nats-Subject"],
            int(headers["Nats-Sequence"]),
            at.timestamp(),
            headers,
            message.data,
        )


async def find(bus: Bus, stream: str, seq: int) -> Found | None:
    """The message of `stream` with this sequence, or None."""
    ask = msgspec.json.encode({"seq": seq})
    answer = await bus.call(f"$JS.API.DIRECT.GET.{stream}", ask)
    return None if _status(answer) == _NONE else Found.of(answer)


async def scan(
    bus: Bus, stream: str, subject: str, *, first: int = 1
) -> AsyncGenerator[Found, None]:
    """The messages of `stream` on `subject` (with wildcards), in order, from `first` on.

    It ends where the stream ends. Raises :class:`Unavailable` when NATS stays away, or has no such
    stream.
    """
    answers: asyncio.Queue[Message] = asyncio.Queue()
    inbox = f"{bus.inbox}.scan.{secrets.token_hex(4)}"
    subscription = await bus.subscribe(f"{inbox}.*", answers.put)
    asked = failed = 0
    try:
        while failed < _ATTEMPTS:
            asked += 1
            reply = f"{inbox}.{asked}"
            await _ask(bus, stream, subject, first, reply)
            last, pending = 0, -1
            while pending < 0 and (message := await _next(answers)) is not None:
                if message.subject != reply:
                    continue  # of a batch that was given up
                if (status := _status(message)) == _NONE:
                    return
                if status == _END:
                    pending = int((message.headers or {})["Nats-Num-Pending"])
                elif status:
                    raise Unavailable(f"the stream {stream} can't be read: status {status}")
                elif int((message.headers or {})["Nats-Last-Sequence"]) != last:
                    break  # something before it was lost on the way
                else:
                    found = Found.of(message)
                    last, first, failed = found.seq, found.seq + 1, 0
                    yield found
            if pending == 0:
                return
            failed += pending < 0
        raise Unavailable(f"the stream {stream} can't be read: no answer")
    finally:
        await subscription.stop()


async def _ask(bus: Bus, stream: str, subject: str, first: int, reply: str) -> None:
    ask = {"seq": first, "next_by_subj": subject, "batch": _BATCH, "max_bytes": _BYTES}
    await bus.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(ask), reply=reply)


async def _next(answers: asyncio.Queue[Message]) -> Message | None:
    try:
        async with asyncio.timeout(_WAIT):
            return await answers.get()
    except TimeoutError:
        return None


def _status(message: Message) -> str:
    headers: dict[Any, str] = message.headers or {}
    return headers.get("Status", "") if "Nats-Sequence" not in headers else ""
