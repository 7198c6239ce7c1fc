"""Compares this process's clock with nats-server's, and takes no requests where it is off."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable

import structlog

from tenantry import clock, metrics, tasks
from tenantry.bus import Bus, api
from tenantry.context.token import SKEW
from tenantry.context.verify_keys import BUCKET
from tenantry.errors import JetStreamError, Rejection

BOUND = SKEW
"""Seconds that a process's clock may be off nats-server's."""

_EVERY = 5.0
"""Between two looks, seconds."""

_DOUBT = 0.1
"""A difference below this, beyond half of the round trip, counts as none, seconds."""

log = structlog.get_logger("tenantry.clock")

Step = Callable[[], Awaitable[None]]


class ClockCheck:
    """Looks when it is started and every five seconds.

    While the clock is within `BOUND` the process takes part: `join` is called when that begins,
    `leave` when it ends. Where nats-server does not answer, it stays as it is.
    """

    def __init__(self, bus: Bus) -> None:
        self.ahead = 0.0
        """Seconds by which this clock is ahead of nats-server's; 0 for less than can be told."""
        self.joined = asyncio.Event()
        """Set while the process takes part."""
        self._bus = bus
        self._off = False
        self._task: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] = lambda: None

    async def start(self, join: Step, leave: Step) -> None:
        """Look, take part where the clock is right, and go on looking. Raises what `join` does."""
        if metrics.enabled():
            self._forget = metrics.observe(metrics.CLOCK, lambda: [(self.ahead, {})])
        await self._look()
        await self._follow(join, leave)
        self._task = asyncio.create_task(self._run(join, leave))

    async def stop(self) -> None:
        """Look no more; neither `join` nor `leave` is called any more."""
        self._forget()
        await tasks.end(self._task)

    def about(self) -> dict[str, str]:
        """Return what `$SRV.PING` tells of a clock that is off: seconds ahead."""
        return {"clock": f"{self.ahead:+.1f}"} if self._off else {}

    async def _run(self, join: Step, leave: Step) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self._look()
                await self._follow(join, leave)
            except (Rejection, JetStreamError) as error:
                log.warning("not joined: tried again", why=str(error))
            except Exception:
                log.exception("clock not compared")

    async def _look(self) -> None:
        began, here = time.monotonic(), time.time()
        try:
            told = (await api(self._bus, f"STREAM.INFO.KV_{BUCKET}"))["ts"]
        except (Rejection, JetStreamError) as error:
            log.debug("clock not compared", why=str(error))
            return
        half = (time.monotonic() - began) / 2
        ahead = here + half - dt.datetime.fromisoformat(told).timestamp()
        self.ahead = ahead if abs(ahead) > half + _DOUBT else 0.0
        self._off = abs(ahead) - half > BOUND
        clock.is_ahead(self.ahead)

    async def _follow(self, join: Step, leave: Step) -> None:
        if self._off and self.joined.is_set():
            self.joined.clear()
            self._say()
            await leave()
        elif self._off:
            self._say()
        elif not self.joined.is_set():
            await join()
            self.joined.set()
            log.info("clock right", ahead=round(self.ahead, 1))

    def _say(self) -> None:
        log.error(
            "clock off: taking no requests",
            ahead=round(self.ahead, 1),
            bound=BOUND,
            hint="set the machine's clock, by NTP",
        )
