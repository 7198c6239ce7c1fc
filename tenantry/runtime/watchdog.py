"""Notices a handler that blocks the event loop, and says where it stands.

While the loop is blocked nothing renews the worker's leases: after two seconds others take over
what it handles. So whoever reads the log should find out which line it was.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from types import TracebackType

import structlog

BLOCKED = 0.5
"""A loop that does not turn for so long is blocked, seconds."""

_TICK = 0.1

log = structlog.get_logger("tenantry.worker")


class Watchdog:
    """Watches the event loop that it is entered in, from a thread of its own."""

    def __init__(self) -> None:
        self._ticked = time.monotonic()
        self._told = False
        self._stop = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._loop_thread = 0

    async def __aenter__(self) -> Watchdog:
        self._loop_thread = threading.get_ident()
        self._tick(asyncio.get_running_loop())
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        if self._told:
            self._told = False
            log.warning("event loop goes on", after=round(now - self._ticked, 1))
        self._ticked = now
        self._timer = loop.call_later(_TICK, self._tick, loop)

    def _watch(self) -> None:
        while not self._stop.wait(_TICK):
            blocked = time.monotonic() - self._ticked
            if blocked > BLOCKED and not self._told:
                self._told = True
                log.warning("event loop blocked", seconds=round(blocked, 1), at=self._where())

    def _where(self) -> str:
        """The lines that the loop's thread is at, the innermost last."""
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001  (its one use)
        stack = traceback.extract_stack(frame)[-3:] if frame is not None else []
        return " > ".join(f"{each.filename}:{each.lineno} {each.name}" for each in stack)
