"""Room of the journal: the bytes that commands may still take, so that a reserve is kept.

The rest is for what services emit and send: without it the messages in hand could not be finished.
"""

from __future__ import annotations

import asyncio
import math

import structlog

from tenantry import tasks
from tenantry.bus import Bus
from tenantry.bus.jetstream import api
from tenantry.errors import NotAllowed, TenantryError, Unavailable
from tenantry.journal import health
from tenantry.streams import JOURNAL

_PERIOD = 1.0
"""Seconds between two looks at the journal."""

_RETRY = 10.0
"""When a command that was refused may be sent again, seconds."""

log = structlog.get_logger("tenantry.router")


class JournalRoom:
    """Asks the journal each second how full it is, and counts what is let in meanwhile.

    While the journal does not answer, the last answer stays in force.
    """

    def __init__(self, bus: Bus) -> None:
        self.left = math.inf
        """Bytes that commands may take until the next look."""
        self._bus = bus
        self._full = False
        self._known = True
        self._allowed = True
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, then each second."""
        await self._look()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Look no more."""
        await tasks.end(self._task)

    def take(self, size: int) -> None:
        """Count a command of `size` bytes. Raises :class:`Unavailable` where it does not fit."""
        if size > self.left:
            raise Unavailable(
                "the journal is full: commands are not taken now",
                hint="requests still go; older messages make room when their time is over",
                retry_after=_RETRY,
            )
        self.left -= size

    async def _run(self) -> None:
        while self._allowed:
            await asyncio.sleep(_PERIOD)
            await self._look()

    async def _look(self) -> None:
        try:
            info = await api(self._bus, f"STREAM.INFO.{JOURNAL}")
        except NotAllowed:
            self._allowed = False  # each further try would look like an attack
            hint = "bring the operator's directory up to date with `tenantry keys upgrade`"
            log.warning("no reserve is kept in the journal", hint=hint)
            return
        except TenantryError as error:
            if self._known:
                log.warning("it is not known how full the journal is", why=error.message)
            self._known = False
            return
        self._known = True
        self.left = health.room(info)
        if (self.left < 0) is not self._full:
            self._full = not self._full
            used, limit = info["state"]["bytes"], info["config"]["max_bytes"]
            if self._full:
                log.error("the journal is full: commands are refused", used=used, limit=limit)
            else:
                log.info("the journal has room again", used=used, limit=limit)
