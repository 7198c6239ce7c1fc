"""A pull consumer that keeps messages coming, never more than there is room for.

nats-py has neither `consume` nor priority groups, so this speaks ADR-13 (pull) and ADR-42
(pinned client) itself: short pulls, as many as free slots, renewed when they run out. A pinned
consumer whose reader is full sends pulls that can take nothing, which keeps its pin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from tenantry import tasks
from tenantry.bus.client import INBOXES
from tenantry.bus.connection import Bus, Message, Subscription

EXPIRES = 1.5
"""Seconds a pull stays open. Only its end tells an idle reader that it still had the pin when it
asked, twice as long ago at most."""

_MAX_BATCH = 256
_PAUSE = 0.5
_POLL = 0.02
_PATIENCE = 2.0
"""A pull that has not ended so long after its time was forgotten on either side, seconds."""

_GONE = frozenset({"404", "503"})

log = structlog.get_logger("tenantry.bus")


class Pull:
    """Reads one pull consumer into `receive`, at most `room()` messages ahead."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        consumer: str,
        *,
        receive: Callable[[Message], None],
        room: Callable[[], int],
        lost: Callable[[], None],
        group: str = "",
        expires: float | None = None,
    ) -> None:
        self._bus = bus
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._receive = receive
        self._room = room
        self._lost = lost
        self._group = group
        self._expires = EXPIRES if expires is None else expires
        self._pin = ""
        self._open: dict[str, int] = {}
        self._sent: dict[str, float] = {}
        self._served = 0.0
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._consumer = consumer
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] = lambda: None
        self._quiet = False
        self._full_until = 0.0
        self._gone_until = 0.0

    async def start(self) -> None:
        """Begin to read."""
        self._subscription = await self._bus.listen(f"{self._reply}.*", self._on_message)
        self._forget = self._bus.on_reconnect(self._reset)
        self._task = asyncio.create_task(self._run())

    @property
    def _reply(self) -> str:
        return f"{self._bus.inbox}.pull.{self._consumer}"

    @property
    def pin(self) -> str:
        """The pin that the server has given to this reader, if any; it outlives `stop`."""
        return self._pin

    @property
    def served(self) -> float:
        """When the latest pull was sent of which the server is known to have taken notice.

        By `time.monotonic`; 0 without a pin. The pin lives from then on for its full timeout.
        """
        return self._served if self._pin else 0.0

    @property
    def expected(self) -> int:
        """How many messages the server may still send for the pulls under way."""
        return sum(self._open.values())

    def wake(self) -> None:
        """There may be room again: ask for more where it is enough, or where a pin must be kept."""
        now = self._loop.time()
        if self._quiet or now < self._gone_until:
            return
        expected = self.expected
        free = min(self._room() - expected, _MAX_BATCH)
        if free > 0 and (not self._open or free >= expected):
            self._pull(free)
        elif self._pin and not self._open and now >= self._full_until:
            self._pull(1, max_bytes=1)

    async def quiet(self) -> None:
        """Ask for no more, and return when the server has none of our pulls any longer.

        What is given back while one is still open would go to it first, and come after the rest.
        """
        self._quiet = True
        loop = asyncio.get_running_loop()
        end = loop.time() + EXPIRES + _PAUSE
        while self._open and loop.time() < end:  # noqa: ASYNC110  (rare, and short)
            await asyncio.sleep(_POLL)

    async def stop(self) -> None:
        """Ask for no more; what is under way still reaches `receive`, or is delivered anew."""
        self._quiet = True
        self._forget()
        await tasks.end(self._task)
        if self._subscription is not None:
            await self._subscription.stop()
        self._open.clear()

    def _reset(self) -> None:
        """After a reconnect no pull is under way any more. The pin may still be ours."""
        self._open.clear()
        self._sent.clear()
        self.wake()

    async def _run(self) -> None:
        """See to it that what is forgotten on either side is asked for again."""
        while True:
            try:
                overdue = time.monotonic() - self._expires - _PATIENCE
                for name in [name for name, sent in self._sent.items() if sent < overdue]:
                    self._open.pop(name, None)  # the server would have ended it
                    del self._sent[name]
                self.wake()
            except Exception as error:  # noqa: BLE001  (a reader that ends would never be missed)
                log.warning("pull failed", consumer=self._subject, why=str(error))
            await asyncio.sleep(EXPIRES)

    def _pull(self, batch: int, **more: int) -> None:
        self._count += 1
        name = str(self._count)
        request: dict[str, Any] = {"batch": batch, "expires": int(self._expires * 1e9), **more}
        if self._group:
            request["group"] = self._group
            if self._pin:
                request["id"] = self._pin
        reply = f"{self._reply}.{name}"
        if self._bus.post(self._subject, msgspec.json.encode(request), reply=reply):
            self._open[name] = 0 if more else batch
            self._sent[name] = time.monotonic()

    def _on_message(self, message: Message) -> None:
        headers = message.headers or {}
        if "Status" in headers and message.subject.startswith(INBOXES):
            self._on_status(message.subject.rpartition(".")[2], headers)
            return
        if pin := headers.get("Nats-Pin-Id"):
            self._pin = pin
        for name, left in self._open.items():
            if left:
                self._served = max(self._served, self._sent.get(name, 0.0))
                if left == 1:
                    del self._open[name]
                    self._sent.pop(name, None)
                else:
                    self._open[name] = left - 1
                break
        self._receive(message)
        self.wake()

    def _on_status(self, name: str, headers: dict[str, str]) -> None:
        """A pull has ended: its time is over, or the server refused it."""
        status = headers["Status"]
        if status == "100":
            return
        keepalive = self._open.pop(name, None) == 0
        sent = self._sent.pop(name, 0.0)
        if status == "423":
            self._pin, self._served = "", 0.0
        elif self._pin:
            self._served = max(self._served, sent)
        if status in _GONE or "Deleted" in headers.get("Description", ""):
            self._lost()
        if keepalive and status == "409":
            # There are messages but no room: ask again only after a while.
            self._full_until = self._rest(EXPIRES)
        elif status in _GONE:
            self._gone_until = self._rest(_PAUSE)  # who says so says it at once, again and again
        else:
            self.wake()

    def _rest(self, seconds: float) -> float:
        self._loop.call_later(seconds + _POLL, self.wake)
        return self._loop.time() + seconds
