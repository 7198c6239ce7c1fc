"""Notices a handler that blocks the event loop, and says which it is and where it stands.

While the loop is blocked nothing else that is here goes on, and nothing renews the worker's leases:
after two seconds others take over what it handles.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from types import CodeType, FrameType, TracebackType

import structlog

from tenantry.service.handler import Handler

HOGGED = 0.1
"""A handler that keeps the loop from turning for so long is named, seconds."""

BLOCKED = 0.5
"""A loop that does not turn for so long is blocked, whatever it does, seconds."""

_TICK = 0.025

_SAID = 10.0
"""A handler is named at most once in this time, seconds, however often it blocks."""

log = structlog.get_logger("tenantry.worker")


class Watchdog:
    """Watches the event loop that it is entered in, from a thread of its own."""

    def __init__(self, handlers: Iterable[Handler] = ()) -> None:
        self._actions: dict[CodeType, str] = {}
        for handler in handlers:
            code = getattr(inspect.unwrap(handler.function), "__code__", None)
            if code is not None:
                self._actions[code] = handler.name
        self._quiet: dict[str, float] = {}
        """Until when an action is not named again, by `time.monotonic`."""
        self._seen = 0
        """The frame of the handler that kept the loop at the last look, by its `id`."""
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
            if blocked <= HOGGED or self._told:
                self._seen = 0
                continue
            frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001  (its one use)
            hog = self._handler(frame)
            # The same one as at the last look: many short ones are no fault of the one that runs.
            before, self._seen = self._seen, id(hog) if hog is not None else 0
            if hog is not None and self._seen == before:
                self._say(blocked, frame, hog)
            elif blocked > BLOCKED:
                self._say(blocked, frame, None)

    def _handler(self, frame: FrameType | None) -> FrameType | None:
        """The frame of the handler that runs."""
        while frame is not None and frame.f_code not in self._actions:
            frame = frame.f_back
        return frame

    def _say(self, blocked: float, frame: FrameType | None, hog: FrameType | None) -> None:
        about: dict[str, object] = {}
        if hog is not None:
            action, now = self._actions[hog.f_code], time.monotonic()
            if now < self._quiet.get(action, now):
                return
            self._quiet[action] = now + _SAID
            about = {"action": action, "hint": "await, or run what takes long in a thread"}
        self._told = True
        log.warning("event loop blocked", seconds=round(blocked, 1), at=_where(frame, hog), **about)


def _where(frame: FrameType | None, hog: FrameType | None) -> str:
    """The lines that the loop's thread is at, the innermost last; the first is the handler's."""
    lines: list[str] = []
    for each, line in traceback.walk_stack(frame) if frame is not None else ():
        lines.insert(0, f"{each.f_code.co_filename}:{line} {each.f_code.co_name}")
        if each is hog:
            break
    if hog is None or len(lines) <= 3:
        return " > ".join(lines[-3:])
    return " > ".join([lines[0], "…", *lines[-2:]])
