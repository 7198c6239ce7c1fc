"""Who of the tenants' programs is connected, as the servers tell.

Each login and each end of a connection is an event of the account EDGE. What was missed is put
right by asking all servers for their connections, page by page, now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from tenantry.bus import Bus, Message, Subscription
from tenantry.errors import BadMessage, Rejection
from tenantry.operator.creds import tenant_among
from tenantry.wire.codec import Decoder

_PAGE = 256
_FRESH = 2.0
"""Seconds that a server's answer counts as a sign of life."""


class Client(NamedTuple):
    """One connection. Sorted, the oldest come first."""

    start: str
    """When it began, RFC 3339 in UTC."""
    server: str
    cid: int


class _Server(msgspec.Struct, frozen=True):
    id: str


class _Info(msgspec.Struct, frozen=True):
    start: str
    id: int
    tags: tuple[str, ...] = ()


class _Event(msgspec.Struct, frozen=True):
    server: _Server
    client: _Info


class _Row(msgspec.Struct, frozen=True):
    cid: int
    start: str
    tags: tuple[str, ...] = ()


class _Page(msgspec.Struct, frozen=True):
    connections: tuple[_Row, ...] = ()


class _Connz(msgspec.Struct, frozen=True):
    data: _Page


class _Pong(msgspec.Struct, frozen=True):
    server: _Server


_decode_event = Decoder(_Event)
_decode_page = Decoder(_Connz)
_decode_pong = Decoder(_Pong)


class Clients:
    """The open connections of each tenant, over all servers."""

    def __init__(self, system: Bus, account: str, changed: Callable[[str], None]) -> None:
        self.open: defaultdict[str, set[Client]] = defaultdict(set)
        self._system = system
        self._account = account
        self._changed = changed
        self._ended: set[Client] = set()
        """What has ended while the servers are asked."""
        self._servers: set[str] = set()
        self._asked = 0.0
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Hear of all that happens from now on."""
        events = f"$SYS.ACCOUNT.{self._account}"
        for subject, callback in (
            (f"{events}.CONNECT", self._on_connect),
            (f"{events}.DISCONNECT", self._on_disconnect),
        ):
            self._subscriptions.append(await self._system.subscribe(subject, callback))

    async def stop(self) -> None:
        """Hear no more."""
        for subscription in self._subscriptions:
            await subscription.stop()

    async def reconcile(self) -> None:
        """Ask all servers for all connections; raises what the bus says."""
        before = {name: set(clients) for name, clients in self.open.items()}
        self._ended.clear()
        found: defaultdict[str, set[Client]] = defaultdict(set)
        for server in await self._ask_who_lives():
            await self._pages(server, found)
        for name in before.keys() | found.keys():
            known = self.open[name]
            known -= before.get(name, set()) - found[name]
            known |= found[name] - self._ended
            self._settle(name)

    async def drop_dead(self) -> None:
        """Forget the connections of servers that do not answer: they can't tell of their end."""
        if time.monotonic() - self._asked > _FRESH:
            await self._ask_who_lives()
        for name, clients in list(self.open.items()):
            clients -= {client for client in clients if client.server not in self._servers}
            self._settle(name)

    async def kick(self, tenant: str, client: Client) -> None:
        """Have its server end a connection; one that is gone already is no error."""
        self.open[tenant].discard(client)
        self._settle(tenant)
        body = msgspec.json.encode({"cid": client.cid})
        with contextlib.suppress(Rejection):  # a server that is gone has no connections either
            await self._system.call(f"$SYS.REQ.SERVER.{client.server}.KICK", body)

    async def _ask_who_lives(self) -> set[str]:
        answers = await self._system.gather("$SYS.REQ.SERVER.PING")
        found = set()
        for answer in answers:
            with contextlib.suppress(BadMessage):
                found.add(_decode_pong(answer.data).server.id)
        self._servers, self._asked = found, time.monotonic()
        return found

    async def _pages(self, server: str, found: defaultdict[str, set[Client]]) -> None:
        offset = 0
        while True:
            ask = {"acc": self._account, "auth": True, "limit": _PAGE, "offset": offset}
            answer = await self._system.call(
                f"$SYS.REQ.SERVER.{server}.CONNZ", msgspec.json.encode(ask)
            )
            rows = _decode_page(answer.data).data.connections
            for row in rows:
                if tenant := tenant_among(row.tags):
                    found[tenant].add(Client(row.start, server, row.cid))
            if len(rows) < _PAGE:
                return
            offset += _PAGE
            await asyncio.sleep(0)

    async def _on_connect(self, message: Message) -> None:
        event = _decode_event(message.data)
        if tenant := tenant_among(event.client.tags):
            client = Client(event.client.start, event.server.id, event.client.id)
            if client not in self._ended:  # the two come on subscriptions of their own
                self._servers.add(event.server.id)
                self.open[tenant].add(client)
                self._changed(tenant)

    async def _on_disconnect(self, message: Message) -> None:
        event = _decode_event(message.data)
        if tenant := tenant_among(event.client.tags):
            client = Client(event.client.start, event.server.id, event.client.id)
            self._ended.add(client)
            if tenant in self.open:
                self.open[tenant].discard(client)
                self._settle(tenant)

    def _settle(self, tenant: str) -> None:
        if not self.open[tenant]:
            del self.open[tenant]
