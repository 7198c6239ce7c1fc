"""How far a tenant's messages are known to be settled, by what they wrote into its state."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from tenantry.bus.jetstream import StoredMessage
from tenantry.bus.reading import read
from tenantry.context.fence import EPOCH
from tenantry.context.latest import Latest
from tenantry.context.state import BUCKET, prefix, redo_key
from tenantry.errors import Unavailable
from tenantry.wire import headers

_TRIES = 20
_PAUSE = 0.02
"""How often the state is read, with a pause that grows by so many seconds."""


async def settled_up_to(
    bucket: Latest, tenant: str, service: str, generation: int, epoch: int, since: float
) -> int:
    """The highest sequence of the journal that a tenant's state proves to be settled; 0 for none.

    Reads the fences of what was written in the namespace `generation` since `since` (seconds since
    the epoch, by the server's clock), its redo record among them. A later message commits only
    after the earlier ones of its tenant, so all up to this one were settled. Fences of other epochs
    do not count.

    A replicated bucket is read again until the replica that was asked has what is known of the redo
    record: :meth:`Commit.finish` has just written it anew, after all that the former owner wrote.
    Raises what :func:`tenantry.bus.reading.read` raises.
    """
    newest = 0
    if await bucket.is_replicated(service):
        newest = bucket.newest(redo_key(tenant, service, generation))
    for tried in range(_TRIES):
        mark, last = await _marked(bucket, (tenant, service, generation), epoch, since)
        if last >= newest:
            return mark
        await asyncio.sleep(tried * _PAUSE)
    raise Unavailable(f"the state of {tenant} can't be read: replicas of the bucket lag behind")


async def _marked(
    bucket: Latest, place: tuple[str, str, int], epoch: int, since: float
) -> tuple[int, int]:
    """The highest sequence that one reading of the state proves, and the last revision read."""
    tenant, service, _ = place
    subject = f"$KV.{BUCKET}."
    begin, redo = prefix(*place), redo_key(*place)
    own = f"{subject}{tenant}.{service}.>"
    mark = last = 0
    messages = read(bucket.bus, f"KV_{BUCKET}", own, headers_only=True, start_time=since)
    async with aclosing(messages):
        async for message in messages:
            last = message.seq
            key = message.subject.removeprefix(subject)
            is_value = key.startswith(begin) and not key.startswith("/", len(begin))
            if is_value or key == redo:
                mark = max(mark, _seq(message, epoch))
    return mark, last


def _seq(message: StoredMessage, epoch: int) -> int:
    """The sequence of the message that wrote this; 0 where that was in another epoch."""
    fence = message.headers.get(headers.FENCE, "")
    if not fence.isdecimal() or int(fence) // EPOCH != epoch:
        return 0
    return int(fence) % EPOCH
