"""One tenant's program at the edge: a plain NATS client, without a line of Tenantry's library."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client as NatsClient

PLACED, IMPORTED = "A-1", "B-2"
"""What a shopper orders by request, and by durable command: told apart by their prices."""

_TIMEOUT = 4.0
_TRIES = 8


@dataclass(slots=True)
class Tally:
    """What became of one tenant's messages."""

    sent: int = 0
    answered: int = 0
    limited: int = 0
    unavailable: int = 0
    lost: int = 0
    """No answer in time: the effect may or may not be there."""
    foreign: int = 0
    """Answers that were not its own."""
    stored: int = 0
    """Orders in commands that the journal has acknowledged."""
    unsure: int = 0
    """Orders in commands whose acknowledgement never came."""
    latencies: list[float] = field(default_factory=list)
    """Of answered requests, seconds."""
    times: list[float] = field(default_factory=list)
    """When each of them was answered, by `time.perf_counter`."""

    def percentile(self, share: float) -> float:
        """A latency in milliseconds; 0 where nothing was answered."""
        return percentile(self.latencies, share)

    def between(self, begin: float, end: float) -> list[float]:
        """The latencies of what was answered from `begin` until `end`."""
        pairs = zip(self.times, self.latencies, strict=True)
        return [latency for at, latency in pairs if begin <= at < end]


def percentile(latencies: Sequence[float], share: float) -> float:
    """One of these latencies (seconds) in milliseconds; 0 where there is none."""
    ordered = sorted(latencies)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3 if ordered else 0.0


class Shopper:
    """Sends requests and commands at fixed rates, whatever the answers."""

    def __init__(self, tenant: str, creds: Path, url: str, *, rate: float, imports: float) -> None:
        self.tenant = tenant
        self.tally = Tally()
        self.walls: list[str] = []
        """What the server refused when this tenant tried to reach into another."""
        self._creds = creds
        self._url = url
        self._rate = rate
        self._imports = imports
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self._enough = False
        self._client: NatsClient | None = None

    async def connect(self) -> None:
        """Connect as any NATS client does: URL, credentials, inbox prefix."""
        self._client = await nats.connect(
            self._url,
            user_credentials=str(self._creds),
            inbox_prefix=f"_INBOX.{self.tenant}",
            error_cb=self._refused,
        )

    async def _refused(self, error: Exception) -> None:
        self.walls.append(str(error))

    @property
    def nats(self) -> NatsClient:
        """The connected client."""
        assert self._client is not None, "connect first"  # noqa: S101  (a bug of ours)
        return self._client

    async def trespass(self, other: str) -> None:
        """Try to read and write as another tenant; the server must refuse both."""
        await self.nats.subscribe(f"_INBOX.{other}.>")
        await self.nats.publish(f"tenant.{other}.orders.place", b"{}")
        await self.nats.flush()
        await asyncio.sleep(0.2)

    async def shop(self, seconds: float = math.inf) -> None:
        """Send for so long, or until :meth:`stop`; then wait for the last answers."""
        self._enough = False
        await asyncio.gather(
            self._steadily(self._rate, seconds, self._place),
            self._steadily(self._imports, seconds, self._import),
        )
        if self._tasks:
            await asyncio.wait(self._tasks)

    def stop(self) -> None:
        """Send no more."""
        self._enough = True

    async def _steadily(self, rate: float, seconds: float, send: Any) -> None:
        """Start sends on time, not one after the other: a slow answer holds nothing up."""
        begin = time.perf_counter()
        for turn in itertools.count():
            if turn >= rate * seconds:
                return
            await asyncio.sleep(max(0.0, begin + turn / rate - time.perf_counter()))
            if self._enough:
                return
            task = asyncio.create_task(send(next(self._numbers)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _place(self, number: int) -> None:
        tally, reference = self.tally, f"{self.tenant}/{number}"
        body = json.dumps({"sku": PLACED, "reference": reference}).encode()
        tally.sent += 1
        began = time.perf_counter()
        try:
            answer = await self.nats.request(
                f"tenant.{self.tenant}.orders.place", body, timeout=_TIMEOUT
            )
        except nats.errors.Error:
            tally.lost += 1
            return
        code = (answer.headers or {}).get("Nats-Service-Error-Code")
        if code is None:
            tally.answered += 1
            tally.times.append(now := time.perf_counter())
            tally.latencies.append(now - began)
            tally.foreign += json.loads(answer.data).get("reference") != reference
        elif code == "429":
            tally.limited += 1
        elif code == "503":
            tally.unavailable += 1
        else:
            tally.lost += 1

    async def _import(self, number: int) -> None:
        """Send until the journal says that it has it; the id makes a repeat harmless."""
        body = json.dumps({"orders": [{"sku": IMPORTED}]}).encode()
        stream = self.nats.jetstream(timeout=_TIMEOUT)
        tally, maybe = self.tally, False
        for attempt in range(_TRIES):
            tally.sent += 1
            try:
                await stream.publish(
                    f"tenant.{self.tenant}.orders.import",
                    body,
                    headers={"Nats-Msg-Id": f"import-{number}"},
                )
            except nats.js.errors.APIError as error:
                if error.code == 429:
                    tally.limited += 1
                else:
                    tally.unavailable += 1
            except nats.errors.Error:
                tally.lost += 1
                maybe = True
            else:
                tally.answered += 1
                tally.stored += 1
                return
            await asyncio.sleep(0.5 * (attempt + 1))
        tally.unsure += maybe

    async def sold(self) -> tuple[int, int]:
        """The tenant's ledger: orders and cents."""
        answer = await self.nats.request(f"tenant.{self.tenant}.ledger.total", b"", timeout=2)
        if (answer.headers or {}).get("Nats-Service-Error-Code"):
            return 0, 0
        total = json.loads(answer.data)
        return total["orders"], total["cents"]

    async def command(self, action: str, body: dict[str, Any]) -> int:
        """Have a command stored; returns its sequence in the journal, from the PubAck."""
        stream = self.nats.jetstream(timeout=_TIMEOUT)
        stored = await stream.publish(f"tenant.{self.tenant}.{action}", json.dumps(body).encode())
        return stored.seq

    async def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await self._client.close()
