"""What an attacker brings along: a connection that keeps to no client's rules, and forged JWTs."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from tenantry.bus.message import fields
from tenantry.operator import OperatorHome
from tenantry.operator.keys import KeyPair, Kind
from tests.mesh import PATIENCE

HEAD = {"typ": "JWT", "alg": "ed25519-nkey"}


class Heard(NamedTuple):
    """A message as it came over the wire."""

    subject: str
    reply: str
    headers: dict[str, str]
    data: bytes


class Wire:
    """One connection that speaks NATS's protocol by hand: it sends what no client would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.info: dict[str, Any] = {}
        self.errors: list[str] = []
        """What the server has said in `-ERR`."""
        self.heard: list[Heard] = []
        self.closed = asyncio.Event()
        """Set when the server has hung up."""
        self._reader = reader
        self._writer = writer
        self._sid = 0
        self._pongs: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, and say nothing yet."""
        place = urlsplit(url)
        wire = cls(*await asyncio.open_connection(place.hostname, place.port))
        line = await wire._reader.readline()
        wire.info = json.loads(line.removeprefix(b"INFO "))
        wire._task = asyncio.create_task(wire._read())
        return wire

    async def login(self, creds: str = "", **options: Any) -> bool:
        """Say CONNECT, with credentials or any other options; whether the server lets it in."""
        said: dict[str, Any] = {"verbose": False, "pedantic": False, "headers": True}
        said |= {"no_responders": True, "echo": True, "protocol": 1, "lang": "x", "version": "1"}
        if creds:
            # By hand, for what is refused as a credentials file has to come to the server.
            jwt, seed = (part for part in creds.split() if part.startswith(("ey", "SU")))
            said |= {"jwt": jwt, "sig": self.signed(KeyPair.from_seed(seed))}
        return await self.say(b"CONNECT %s\r\n" % json.dumps(said | options).encode())

    def signed(self, key: KeyPair) -> str:
        """The server's nonce, signed."""
        return base64.urlsafe_b64encode(key.sign(self.info["nonce"].encode())).decode().rstrip("=")

    async def say(self, data: bytes) -> bool:
        """Write bytes as they are; whether the server took all of it without an error."""
        before = len(self.errors)
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        gone = asyncio.create_task(self.closed.wait())
        await self.write(data + b"PING\r\n")
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({pong, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        return not self.closed.is_set() and len(self.errors) == before

    async def write(self, data: bytes) -> None:
        """Write bytes, and wait for nothing."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            self.closed.set()

    async def publish(
        self,
        subject: str | bytes,
        body: bytes = b"{}",
        *,
        reply: str | bytes = b"",
        block: bytes = b"",
    ) -> bool:
        """PUB or HPUB with anything; whether the server said nothing against it."""
        to = _raw(subject) + (b" " + _raw(reply) if reply else b"")
        if block:
            line = b"HPUB %s %d %d\r\n" % (to, len(block), len(block) + len(body))
        else:
            line = b"PUB %s %d\r\n" % (to, len(body))
        return await self.say(line + block + body + b"\r\n")

    async def subscribe(self, subject: str | bytes, queue: str | bytes = b"") -> bool:
        """SUB with anything; whether the server said nothing against it."""
        self._sid += 1
        group = _raw(queue) + b" " if queue else b""
        return await self.say(b"SUB %s %s%d\r\n" % (_raw(subject), group, self._sid))

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                await self._take(line)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            self.closed.set()

    async def _take(self, line: bytes) -> None:
        word, _, rest = line.rstrip(b"\r\n").partition(b" ")
        if word == b"PING":
            self._writer.write(b"PONG\r\n")
        elif word == b"PONG" and self._pongs:
            pong = self._pongs.pop(0)
            if not pong.done():
                pong.set_result(None)
        elif word == b"-ERR":
            self.errors.append(rest.decode(errors="replace").strip("'"))
        elif word in {b"MSG", b"HMSG"}:
            parts = rest.decode(errors="replace").split()
            sizes = 2 if word == b"HMSG" else 1
            body = (await self._reader.readexactly(int(parts[-1]) + 2))[:-2]
            cut = int(parts[-2]) if sizes == 2 else 0
            reply = parts[2] if len(parts) == 3 + sizes else ""
            found = fields(body[:cut]) if cut else None
            self.heard.append(Heard(parts[0], reply, found or {}, body[cut:]))


@asynccontextmanager
async def wire(url: str, creds: str = "") -> AsyncIterator[Wire]:
    """A raw connection with these credentials; without any it has not said CONNECT yet."""
    opened = await Wire.open(url)
    try:
        if creds:
            assert await opened.login(creds), opened.errors
        yield opened
    finally:
        await opened.close()


async def let_in(url: str, creds: str = "", **options: Any) -> bool:
    """Whether the server takes this login."""
    async with wire(url) as stranger:
        return await stranger.login(creds, **options)


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


# --- JWTs --------------------------------------------------------------------------------------


def sign(claims: dict[str, Any], signer: KeyPair, head: dict[str, Any] | None = None) -> str:
    """A JWT that says anything, signed with any key."""
    signed = ".".join(_b64(json.dumps(part).encode()) for part in (head or HEAD, claims))
    return f"{signed}.{_b64(signer.sign(signed.encode()))}"


def user_jwt(
    home: OperatorHome,
    user: KeyPair,
    signer: KeyPair,
    tags: Iterable[str] = (),
    *,
    head: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
    **nats: Any,
) -> str:
    """The JWT of a user in EDGE; `more` are further claims, `nats` what its `nats` part says."""
    said = {"issuer_account": home.edge_public_key, "tags": list(tags), "type": "user"}
    claims = {
        "sub": user.public_key,
        "iss": signer.public_key,
        "iat": int(time.time()),
        "jti": "X" * 52,
        "nats": said | {"version": 2} | nats,
    }
    return sign(claims | (more or {}), signer, head)


def tenants_key(home: OperatorHome) -> KeyPair:
    """The key that signs all tenants' credentials: only who has it can go on from here."""
    return KeyPair.from_seed((home.path / "keys" / "edge-tenant.nk").read_text())


def user() -> KeyPair:
    """A program's own key pair."""
    return KeyPair.generate(Kind.USER)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
