"""A journal that lost its end: after a power cut its last sequences may be given out a second time.

What a checkpoint says of them, and the fences of what was written, would then be taken for new
messages: those would count as settled and be lost. So the sequences are used up before anything is
read. What was stored under one of them before that can't be told from what was lost.
"""

from __future__ import annotations

import structlog

from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.streams import JOURNAL
from tenantry.wire import headers

MORE = 1024
"""Sequences to use up beyond the checkpoint: what was begun after it was written."""

_BATCH = 500
_SUBJECT = "tenant.nobody.platform.gap"

log = structlog.get_logger("tenantry.delivery")


async def restore_end(bus: Bus, settled: int) -> int:
    """Make sure that new messages come after `settled`; returns the journal's last sequence.

    Raises what NATS raises.
    """
    end = await last_seq(bus)
    if end >= settled:
        return end
    log.error(
        "the journal lost its end",
        last=end,
        settled=settled,
        hint="acknowledged messages are gone; sequences are left out so that no new one is taken "
        "for one of them",
    )
    while end < settled + MORE:
        acks = [
            await js.begin_store(bus, _SUBJECT, b"", {headers.TTL: "1s"})
            for _ in range(min(_BATCH, settled + MORE - end))
        ]
        for ack in acks:
            end = max(end, js.stored(await ack).seq)
    return end


async def last_seq(bus: Bus) -> int:
    """The sequence of the journal's last message."""
    return int((await js.api(bus, f"STREAM.INFO.{JOURNAL}"))["state"]["last_seq"])
