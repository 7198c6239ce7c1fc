"""Waiting until a world has settled: for as long as it makes progress, and no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import StreamState

from chaos import facts

PATIENCE = 60.0
"""Without progress for so long, what is left counts as stuck, seconds."""

LONGEST = 900.0
"""However much progress there is, seconds."""

_EVERY = 0.5
_PROGRESS = ("JOURNAL", "KV_state", "DEAD")


async def settle(client: Client, say: Callable[[str], None]) -> float | None:
    """Return the seconds that it took until nothing was left to do, or None if it is stuck."""
    began = moved = time.monotonic()
    last: tuple[int, ...] = ()
    calm = 0
    while calm < 3:
        now = time.monotonic()
        try:
            unsettled = await facts.unsettled(client)
            left = sum(unsettled.waiting.values()) + (await _state(client, "SCHEDULES")).messages
            apart = len(unsettled.sidelined)
            apart += sum(
                state in {"asked", "running"} for state in (await facts.replays(client)).values()
            )
            mark = (left, apart, *[(await _state(client, stream)).last_seq for stream in _PROGRESS])
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, KeyError):
            mark, left, apart = last, 1, 1
        calm = calm + 1 if not left and not apart else 0
        if mark != last:
            last, moved = mark, now
        if now - moved > PATIENCE or now - began > LONGEST:
            return None
        say(f"settling: {left} messages, {apart} tenants sidelined")
        await asyncio.sleep(_EVERY)
    return moved - began


async def _state(client: Client, stream: str) -> StreamState:
    """What a stream holds; nothing where it does not exist."""
    try:
        return (await client.jetstream().stream_info(stream)).state
    except nats.js.errors.NotFoundError:
        return StreamState(messages=0, bytes=0, first_seq=0, last_seq=0, consumer_count=0)
