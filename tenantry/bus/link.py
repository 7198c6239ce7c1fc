"""One living connection to NATS, made anew after each loss.

nats-py's own reconnect gives up for good on most errors of the server (an expired or revoked
JWT, account limits) and buffers publishes while it is away. So every loss of a connection is met
in one way instead: the client is thrown away and a new one is made with backoff.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import random
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import nats.errors
import structlog

from tenantry import tasks
from tenantry.bus.client import NatsClient, reason
from tenantry.errors import (
    ConnectionFailed,
    NotAllowed,
    Rejection,
    TenantryError,
    Unavailable,
)
from tenantry.operator import creds as creds_files

_DENIED = re.compile(
    r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE
)
_MAX_BACKOFF = 2.0
_CONNECT = 8.0
_LOOK = 1.0
"""Seconds between looks at the credentials file."""
_LOOK_AGAIN = 5.0
_LINGER = 2.0
"""Seconds that a connection which was replaced stays at least: longer than any pull."""
_LINGER_MOST = 30.0
_LOST = (nats.errors.UnexpectedEOF, OSError)

log = structlog.get_logger("tenantry.bus")


class Link:
    """Keeps one client of nats-py connected.

    `lay` lays subscriptions on each new client before anybody else has it, and once more, those
    that came meanwhile, when it has taken another one's place; `lost` is told why nothing under way
    will be answered any more; `denied` is told what (publish, subscription) the credentials do not
    allow, and to which subject; `idle` returns when nothing is under way that was when it was
    called.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        creds: str | Path | None,
        name: str,
        patience: float,
        lay: Callable[[NatsClient], Awaitable[None]],
        lost: Callable[[Rejection], None],
        denied: Callable[[str, str], None],
        idle: Callable[[], Awaitable[None]],
    ) -> None:
        self._servers = list(servers)
        self._creds = creds
        self._name = name
        self.renewals = 0
        self._patience = patience
        self._lay = lay
        self._tell_lost = lost
        self._tell_denied = denied
        self._client: NatsClient | None = None
        self.inbox = ""
        """That of the client, or of the latest one."""
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._closing = False
        self._healing: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[], None]] = []
        self._trouble: Exception | None = None
        self._closing_deaf: asyncio.Task[None] | None = None
        self._refused = False
        self._connecting = asyncio.Lock()
        self._idle = idle
        self._leaving: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._read: tuple[tuple[int, int], str] = (0, 0), ""
        """What the credentials file looked like when it was read, and a digest of it."""

    # --- the client of now ---------------------------------------------------------------------

    def alive(self) -> NatsClient | None:
        """The client, if it is not closed: nats-py tells of that a little later."""
        client = self._client
        if client is not None and client.is_closed:
            self._gone(client)
            return None
        return client

    async def wait(self) -> NatsClient:
        """The client, once there is one.

        Raises :class:`Unavailable` when there is none within the patience or the link is closed,
        :class:`NotAllowed` when NATS refuses the credentials.
        """
        try:
            async with asyncio.timeout(self._patience):
                while self._client is None:
                    if self._closing:
                        raise Unavailable("the connection to NATS is closed")
                    if self._refused:
                        raise NotAllowed("NATS refuses the credentials: revoked, expired, unknown")
                    await self._ready.wait()
        except TimeoutError:
            raise Unavailable("NATS is away") from None
        return self._client

    @property
    def connected(self) -> bool:
        """Whether there is a live connection now."""
        return self._client is not None and self._client.is_connected

    @property
    def max_payload(self) -> int:
        """The largest message that NATS takes, headers included, bytes."""
        return self._client.max_payload if self._client is not None else 1 << 20

    @property
    def server_version(self) -> str:
        """The version of the nats-server that this is connected to; empty while it is away."""
        version = self._client.connected_server_version if self._client is not None else None
        return f"{version.major}.{version.minor}.{version.patch}" if version is not None else ""

    async def flush(self) -> None:
        """Return when the server has taken in all that was sent before."""
        if self._client is not None:
            await self.unless_lost(self._client.flush())

    async def unless_lost(self, work: Coroutine[Any, Any, object]) -> None:
        """Do this on the connection of now, or leave it when that is lost: it might never end."""
        doing, lost = asyncio.create_task(work), asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({doing, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.end(doing, lost)
            if not doing.cancelled():
                doing.exception()  # seen: the connection's own end says what there is to say

    # --- its life ------------------------------------------------------------------------------

    async def connect(self) -> None:
        """One round over the servers; raises :class:`ConnectionFailed` when none will do."""
        async with self._connecting:
            if self._client is not None:
                return
            self._take(await self._round(self.renewals))
        if self._creds and self._watching is None:
            self._watching = asyncio.create_task(self._watch_credentials())

    def _take(self, client: NatsClient) -> None:
        """From now on this client is the one; not before, as nobody hears its inbox yet."""
        if self._client is None:
            self._lost = asyncio.Event()
        self._client, self.inbox = client, client.inbox
        self._ready.set()

    async def _round(self, number: int) -> NatsClient:
        failures = []
        for url in random.sample(self._servers, len(self._servers)):
            client, made = NatsClient(), False
            try:
                async with asyncio.timeout(_CONNECT):
                    await self._open(client, url, number)
                if client.is_connected:
                    made = True
                    return client
                failures.append(f"{url}: closed at once")
            except Exception as error:  # noqa: BLE001  (nats-py lets through what it meets)
                failures.append(f"{url}: {reason(self._trouble or error)}")
            finally:
                if not made:
                    with contextlib.suppress(Exception):
                        await client.close()
        raise ConnectionFailed(
            f"can't connect to NATS: {'; '.join(failures)}",
            hint="check the URL and the credentials, and that the server is up",
        )

    # --- other credentials ---------------------------------------------------------------------

    async def renew(self) -> None:
        """Go over to a connection with what the credentials file holds now; nothing is missed.

        The one of before hears what is still under way to it, then it is closed. Raises
        :class:`ConnectionFailed` where there is no other one: then it stays.
        """
        async with self._connecting:
            old = self._client
            client = await self._round(self.renewals + 1)
            try:
                if old is not None:
                    with contextlib.suppress(TimeoutError, nats.errors.Error, OSError):
                        await old.flush()  # what it has sent comes before what the other sends
            except BaseException:
                await client.close()  # cancelled on the way: nobody else would
                raise
            self.renewals += 1
            self._take(client)
            try:
                # Who subscribed while it was made did so on the one of before.
                with contextlib.suppress(TimeoutError, nats.errors.Error, OSError):  # lost again
                    await self._lay(client)
                    await client.flush()
            finally:
                if old is not None:
                    leaving = asyncio.create_task(self._leave(old))
                    self._leaving.add(leaving)
                    leaving.add_done_callback(self._leaving.discard)
        log.info("credentials renewed", name=self._name)

    async def _leave(self, old: NatsClient) -> None:
        try:
            await old.withdraw()
            await asyncio.sleep(_LINGER)
            async with asyncio.timeout(_LINGER_MOST):
                await self._idle()
        except (TimeoutError, nats.errors.Error, OSError):
            pass  # it had its time
        finally:
            with contextlib.suppress(Exception):
                await old.close()

    async def _watch_credentials(self) -> None:
        """A new file, from whoever has rotated a key, needs no restart."""
        path, pause = Path(self._creds or ""), _LOOK
        while True:
            await asyncio.sleep(pause)
            pause = _LOOK
            try:
                if self._client is None or _stamp(path) == self._read[0]:
                    continue
                stamp = _stamp(path)
                if _digest(creds_files.load(path)) == self._read[1]:
                    self._read = stamp, self._read[1]
                    continue
                await self.renew()
            except (TenantryError, OSError) as error:
                log.warning("new credentials not taken", name=self._name, why=str(error))
                self._read, pause = ((0, 0), ""), _LOOK_AGAIN

    async def _open(self, client: NatsClient, url: str, number: int) -> None:
        self._trouble = None
        login: dict[str, Any] = {}
        if self._creds:
            path = Path(self._creds)
            stamp, text = _stamp(path), creds_files.load(path)
            login = _login(creds_files.parse(text))
            self._read = stamp, _digest(text)
        await client.connect(
            url,
            name=f"{self._name}~{number}" if number else self._name,
            **login,
            allow_reconnect=False,
            # 1 and 0: a port that refuses is tried twice at once, not for two minutes.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=5,
            ping_interval=20,
            max_outstanding_pings=2,
            closed_cb=functools.partial(self._closed, client),
            error_cb=self._error,
        )
        client.hasten()
        client.when_deaf(functools.partial(self._deaf, client))
        await self._lay(client)
        await client.flush()

    def _deaf(self, client: NatsClient) -> None:
        """nats-py has stopped to read, but not closed: end it, so that a new one is made."""
        if not client.is_closed:
            log.error("connection does not read any more, making a new one", name=self._name)
            self._gone(client)
            self._closing_deaf = asyncio.create_task(client.close())

    async def _closed(self, client: NatsClient) -> None:
        self._gone(client)

    def _gone(self, client: NatsClient) -> None:
        if self._client is not client:
            return
        self._client = None
        self._ready.clear()
        self._lost.set()
        self._tell_lost(Unavailable("the connection to NATS was lost"))
        if not self._closing:
            log.warning("connection lost", name=self._name, why=reason(client.last_error))
            self._healing = asyncio.create_task(self._heal())

    async def _heal(self) -> None:
        delay, said = 0.05, ""
        while not self._closing:
            try:
                await self.connect()
            except ConnectionFailed as error:
                self._refused = "Authorization" in error.message
                if error.message != said:
                    said = error.message
                    log.warning("still disconnected", name=self._name, why=said)
                await asyncio.sleep(delay * random.uniform(0.7, 1.3))  # noqa: S311  (jitter)
                delay = min(delay * 2, _MAX_BACKOFF)
            else:
                self._refused = False
                log.info("connected again", name=self._name)
                for listener in list(self._listeners):
                    listener()
                return

    async def _error(self, error: Exception) -> None:
        """nats-py tells of a permission violation only here: pass it to the call that met it."""
        self._trouble = error
        denied = _DENIED.search(str(error))
        if denied is None:
            if self._client is not None and not isinstance(error, _LOST):
                log.warning("nats", name=self._name, why=reason(error))
            return
        log.error("not allowed", name=self._name, what=denied[1], subject=denied[2])
        self._tell_denied(denied[1], denied[2])

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` each time there is a new client with its subscriptions.

        Returns a function that ends this.
        """
        self._listeners.append(listener)

        def forget() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return forget

    async def close(self) -> None:
        """Send what is pending and close; whoever waits for a client learns that none will come."""
        self._closing = True
        self._ready.set()
        try:
            await tasks.end(self._watching, self._healing)
            await tasks.end(*self._leaving)
            await self.flush()
        finally:
            client, self._client = self._client, None
            self._tell_lost(Unavailable("the connection to NATS is closed"))
            if client is not None:
                await client.close()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_ino


def _login(creds: creds_files.Credentials) -> dict[str, Any]:
    """The login for nats-py, whose own reader of the file knows no line ends of Windows."""

    def sign(nonce: str) -> bytes:
        return base64.b64encode(creds.key.sign(nonce.encode()))

    return {"user_jwt_cb": creds.jwt.encode, "signature_cb": sign}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
