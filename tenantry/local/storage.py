"""Restarting the nats-server that stores nothing any more, as after a full disk."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from tenantry.bus import Bus
from tenantry.errors import TenantryError
from tenantry.journal import health
from tenantry.local.child import Child

PERIOD = 10.0
"""Seconds between two probes."""

_TIMES = 2
"""Probes in a row that must remain unanswered."""

_FREE = 16 * 1024**2
"""Bytes that must be free on the disk: else a restart changes nothing."""


async def keep_storing(
    server: Child, url: str, creds: Path, folder: Path, say: Callable[[str], None]
) -> None:
    """Probe the journal for ever; restart `server` when it does not answer and there is room.

    `folder` is on the disk where it stores.
    """
    unanswered = 0
    while True:
        await asyncio.sleep(PERIOD)
        unanswered = unanswered + 1 if await _silent(url, creds) else 0
        if unanswered < _TIMES or server.status.state != "ready":
            continue
        if _free(folder) < _FREE:
            if unanswered == _TIMES:
                say(f"the journal does not store: the disk of {folder} is full, free some space")
            continue
        unanswered = 0
        server.restart("the journal does not store")


async def _silent(url: str, creds: Path) -> bool:
    try:
        async with await Bus.connect(url, creds=creds, name="tenantry-up", patience=2.0) as bus:
            return (await health.probe(bus)).silent
    except TenantryError:
        return False  # it does not answer at all: whether it runs is another's care


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
