"""A tenant's program: raw NATS, all that it hears kept, connected again after a fault."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from typing import Any, NamedTuple

from tests.isolation.attacker import Heard, Wire

_PATIENCE = 3.0


class Place(NamedTuple):
    """Where a tenant connects, and as whom."""

    url: str
    creds: str


class Customer:
    """One tenant with its secret. What it was told is in `heard`, over all its connections."""

    def __init__(self, tenant: str, secret: str, place: Place) -> None:
        self.tenant = tenant
        self.secret = secret
        self.place = place
        self.trace = secrets.token_hex(16)
        """The trace id of all that it sends; others may know it."""
        self.heard: list[Heard] = []
        self.errors: list[str] = []
        self.acknowledged: list[str] = []
        self._numbers = itertools.count()
        self._wire: Wire | None = None
        self._seen = 0

    async def connected(self) -> Wire:
        """A live connection that listens to the tenant's own inbox."""
        while self._wire is None or self._wire.closed.is_set():
            await self._drop()
            try:
                wire = await Wire.open(self.place.url)
                self._wire, self._seen = wire, 0
                if await wire.login(self.place.creds):
                    await wire.subscribe(f"_INBOX.{self.tenant}.>")
                    break
            except (OSError, ValueError, TimeoutError):
                pass
            await asyncio.sleep(0.1)
        return self._wire

    async def ask(
        self,
        action: str,
        body: Any,
        *,
        msg_id: str = "",
    ) -> Heard | None:
        """Send and wait for the answer; None where none comes."""
        wire = await self.connected()
        reply = f"_INBOX.{self.tenant}.{next(self._numbers)}"
        block = f"X-Secret: {self.secret}\r\ntraceparent: 00-{self.trace}-{self.trace[:16]}-01\r\n"
        if msg_id:
            block += f"Nats-Msg-Id: {msg_id}\r\n"
        await wire.publish(
            f"tenant.{self.tenant}.{action}",
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            reply=reply,
            block=f"NATS/1.0\r\n{block}\r\n".encode(),
        )
        return await self._answer(wire, reply)

    async def store(self, number: int) -> None:
        """Store one thing, and send it again until that is acknowledged."""
        text = f"{self.secret}-{number}"
        while True:
            # An id that others will use as well, by accident or not.
            answer = await self.ask("vault.store", {"text": text}, msg_id=str(number))
            if answer is not None and b'"stream"' in answer.data:
                self.acknowledged.append(text)
                return
            await asyncio.sleep(0.2)

    async def read(self) -> dict[str, Any] | None:
        """All that the vault keeps of this tenant; None where it does not answer well."""
        answer = await self.ask("vault.read", b"{}")
        if answer is None or not answer.data or "Nats-Service-Error-Code" in answer.headers:
            return None
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def close(self) -> None:
        """Hang up for good."""
        await self._drop()

    async def _answer(self, wire: Wire, reply: str) -> Heard | None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE
        while loop.time() < end and not wire.closed.is_set():
            for heard in wire.heard[self._seen :]:
                if heard.subject == reply:
                    return heard
            await asyncio.sleep(0.01)
        return None

    async def _drop(self) -> None:
        if self._wire is not None:
            self.heard += self._wire.heard
            self.errors += self._wire.errors
            await self._wire.close()
            self._wire = None
