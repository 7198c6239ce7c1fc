"""Which connections use a signing key: nats-server tells it of each."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

import msgspec

from tenantry.bus import Bus
from tenantry.errors import BadMessage
from tenantry.wire.codec import Decoder

_PAGE = 256
_PAUSE = 0.2


class Connected(NamedTuple):
    """One connection."""

    name: str
    issuer: str
    """Public key of the signing key that its credentials are of."""


class _Row(msgspec.Struct, frozen=True):
    name: str = ""
    ip: str = ""
    cid: int = 0
    issuer_key: str = ""


class _Page(msgspec.Struct, frozen=True):
    connections: tuple[_Row, ...] = ()


class _Connz(msgspec.Struct, frozen=True):
    data: _Page


class _Server(msgspec.Struct, frozen=True):
    id: str


class _Pong(msgspec.Struct, frozen=True):
    server: _Server


_decode_page = Decoder(_Connz)
_decode_pong = Decoder(_Pong)


class Connections:
    """Asks all servers, over a connection with the role `sys`."""

    def __init__(self, system: Bus) -> None:
        self._system = system

    async def of(self, account: str) -> list[Connected]:
        """The connections of an account (its public key). Raises what the bus says."""
        found: list[Connected] = []
        servers = set()
        for answer in await self._system.gather("$SYS.REQ.SERVER.PING"):
            with contextlib.suppress(BadMessage):
                servers.add(_decode_pong(answer.data).server.id)
        for server in sorted(servers):
            found += await self._pages(server, account)
        return sorted(found)

    async def leave(self, account: str, key: str, *, within: float) -> list[str]:
        """Wait until none uses a signing key; the names of those that do after `within` s."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        while True:
            left = [each.name for each in await self.of(account) if each.issuer == key]
            if not left or loop.time() > end:
                return left
            await asyncio.sleep(_PAUSE)

    async def _pages(self, server: str, account: str) -> list[Connected]:
        found: list[Connected] = []
        while True:
            ask = {"acc": account, "auth": True, "limit": _PAGE, "offset": len(found)}
            answer = await self._system.call(
                f"$SYS.REQ.SERVER.{server}.CONNZ", msgspec.json.encode(ask)
            )
            rows = _decode_page(answer.data).data.connections
            found += [Connected(row.name or f"{row.ip}#{row.cid}", row.issuer_key) for row in rows]
            if len(rows) < _PAGE:
                return found
