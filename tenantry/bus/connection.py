"""One connection to NATS that heals itself.

nats-py's own reconnect gives up for good on most errors of the server (an expired or revoked
JWT, account limits) and buffers publishes while it is away. So every loss of a connection is met
in one way instead: the client is thrown away, a new one is made with backoff, the subscriptions
are laid again. Meanwhile a publish waits, up to the bus's `patience`, and calls under way fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import re
import secrets
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import nats.errors
import structlog
from nats.aio.msg import Msg as Message

from tenantry import tasks
from tenantry.bus.calls import Calls
from tenantry.bus.client import NatsClient, reason, size
from tenantry.bus.subscription import Callback, Subscription
from tenantry.errors import (
    BadMessage,
    BadSubject,
    ConnectionFailed,
    DeadlineExceeded,
    NotAllowed,
    Rejection,
    TooLarge,
    Unavailable,
)
from tenantry.operator import creds as creds_files
from tenantry.operator import roles

__all__ = ["Bus", "Message", "Subscription"]

_DENIED = re.compile(
    r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE
)
_INBOXES = ("_INBOX.", "_MESH.")
_HEADERS = 4096
_MAX_BACKOFF = 2.0
_CONNECT = 8.0
_LOST = (nats.errors.UnexpectedEOF, OSError)

log = structlog.get_logger("tenantry.bus")


class Bus:
    """A self-healing connection: publish, call, subscribe."""

    def __init__(
        self,
        servers: Sequence[str],
        *,
        creds: str | Path | None = None,
        name: str = "tenantry",
        inbox: str = "_INBOX",
        patience: float = 30.0,
    ) -> None:
        self.name = name
        self._servers = list(servers)
        self._creds = creds
        self._patience = patience
        self._client: NatsClient | None = None
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._closing = False
        self._healing: asyncio.Task[None] | None = None
        self._subscriptions: list[Subscription] = []
        self._listeners: list[Callable[[], None]] = []
        self._calls = Calls()
        self._trouble: Exception | None = None
        self._closing_deaf: asyncio.Task[None] | None = None
        self._refused = False
        self.inbox = f"{inbox}.{secrets.token_hex(8)}"

    # --- life ----------------------------------------------------------------------------------

    @classmethod
    async def connect(
        cls,
        servers: str | Sequence[str],
        *,
        creds: str | Path | None = None,
        name: str = "tenantry",
        inbox: str | None = None,
        patience: float = 30.0,
    ) -> Bus:
        """Connect to the first of `servers` that answers; `creds` is a `.creds` file.

        The inbox prefix defaults to what the credentials allow. Raises
        :class:`ConnectionFailed` when no server answers or the credentials are refused.
        """
        urls = [servers] if isinstance(servers, str) else list(servers)
        urls = [url.strip() for entry in urls for url in entry.split(",") if url.strip()]
        if inbox is None:
            inbox = _inbox_of(Path(creds)) if creds else "_INBOX"
        bus = cls(urls, creds=creds, name=name, inbox=inbox, patience=patience)
        await bus._connect()
        await bus.subscribe(f"{bus.inbox}.*", bus._calls.answered)
        return bus

    async def _connect(self) -> None:
        """One round over the servers; raises :class:`ConnectionFailed` when none will do."""
        failures = []
        for url in random.sample(self._servers, len(self._servers)):
            client = NatsClient()
            try:
                async with asyncio.timeout(_CONNECT):
                    await self._open(client, url)
                if client.is_connected:
                    self._client = client
                    self._lost = asyncio.Event()
                    self._ready.set()
                    return
                failures.append(f"{url}: closed at once")
            except Exception as error:  # noqa: BLE001  (nats-py lets through what it meets)
                failures.append(f"{url}: {reason(self._trouble or error)}")
            finally:
                if self._client is not client:
                    with contextlib.suppress(Exception):
                        await client.close()
        raise ConnectionFailed(
            f"can't connect to NATS: {'; '.join(failures)}",
            hint="check the URL and the credentials, and that the server is up",
        )

    async def _open(self, client: NatsClient, url: str) -> None:
        self._trouble = None
        if self._creds:
            creds_files.parse(creds_files.load(Path(self._creds)))  # says better what is wrong
        await client.connect(
            url,
            name=self.name,
            user_credentials=str(self._creds) if self._creds else None,
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
        client.when_deaf(functools.partial(self._deaf, client))
        for subscription in list(self._subscriptions):
            await subscription.lay(client)
        await client.flush()

    def _deaf(self, client: NatsClient) -> None:
        """nats-py has stopped to read, but not closed: end it, so that a new one is made."""
        if not client.is_closed:
            log.error("connection deaf", name=self.name)
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
        self._calls.fail(Unavailable("the connection to NATS was lost"))
        if not self._closing:
            log.warning("connection lost", name=self.name, why=reason(client.last_error))
            self._healing = asyncio.create_task(self._heal())

    async def _heal(self) -> None:
        delay, said = 0.05, ""
        while not self._closing:
            try:
                await self._connect()
            except ConnectionFailed as error:
                self._refused = "Authorization" in error.message
                if error.message != said:
                    said = error.message
                    log.warning("still disconnected", name=self.name, why=said)
                await asyncio.sleep(delay * random.uniform(0.7, 1.3))  # noqa: S311  (jitter)
                delay = min(delay * 2, _MAX_BACKOFF)
            else:
                self._refused = False
                log.info("connected again", name=self.name)
                for listener in list(self._listeners):
                    listener()
                return

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` each time the connection is back and its subscriptions are laid.

        Returns a function that ends this.
        """
        self._listeners.append(listener)

        def forget() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return forget

    @property
    def connected(self) -> bool:
        """Whether there is a live connection now."""
        return self._client is not None and self._client.is_connected

    @property
    def max_body(self) -> int:
        """The largest body that NATS takes beside the mesh's own headers, bytes."""
        return (self._client.max_payload if self._client is not None else 1 << 20) - _HEADERS

    @property
    def server_version(self) -> str:
        """The version of the nats-server that this is connected to; empty while it is away."""
        version = self._client.connected_server_version if self._client is not None else None
        return f"{version.major}.{version.minor}.{version.patch}" if version is not None else ""

    async def flush(self) -> None:
        """Return when the server has taken in all that was sent before."""
        if self._client is not None:
            await self.unless_lost(self._client.flush())

    async def close(self) -> None:
        """Send what is pending and close."""
        self._closing = True
        self._ready.set()  # who waits for a connection learns that none will come
        if self._healing is not None:
            await tasks.end(self._healing)
        await self.flush()
        client = self._client
        if client is not None:
            await client.close()
        self._client = None
        self._calls.fail(Unavailable("the connection to NATS is closed"))

    async def __aenter__(self) -> Bus:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # --- messages ------------------------------------------------------------------------------

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        reply: str = "",
    ) -> None:
        """Publish; waits for a lost connection up to the bus's patience.

        Raises :class:`Unavailable` when NATS stays away, :class:`TooLarge` over the server's
        limit, :class:`BadSubject`, and :class:`BadMessage` for a header that NATS can't carry.
        """
        client = self._alive() or await self._wait()
        if headers and (total := size(payload, headers)) > client.max_payload:
            # nats-py counts the body alone, and the server hangs up on what is over.
            raise TooLarge(f"with its headers the message has {total} bytes, more than NATS takes")
        try:
            await client.publish(subject, payload, reply, headers)
        except nats.errors.MaxPayloadError:
            raise TooLarge(f"the body has {len(payload)} bytes, more than NATS takes") from None
        except nats.errors.BadSubjectError:
            raise BadSubject(f"NATS refuses the subject {subject[:200]!r}") from None
        except nats.errors.BadHeaderError as error:
            raise BadMessage(f"NATS refuses the header {error.key[:80]!r}") from None
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"NATS is away: {reason(error)}") from None

    async def answer(
        self, message: Message, payload: bytes, *, headers: dict[str, str] | None = None
    ) -> bool:
        """Answer a request, into an inbox and nowhere else; False where that can't be.

        nats-server does not check a reply subject against anyone's permissions: answered blindly,
        `reply=$KV.keys.x` would write with ours (see docs/decisions/0005-reply-subjects.md).
        Raises :class:`TooLarge`: then the asker should at least hear of it.
        """
        if not message.reply.startswith(_INBOXES):
            return False
        try:
            await self.publish(message.reply, payload, headers=headers)
        except TooLarge:
            raise
        except Rejection as rejection:
            log.warning("answer lost", subject=message.subject, why=str(rejection))
            return False
        return True

    async def begin(
        self, subject: str, payload: bytes = b"", *, headers: dict[str, str] | None = None
    ) -> asyncio.Future[Message]:
        """Send a request and return the future of its answer: several may be under way."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def settle(answer: Message | Rejection) -> None:
            if not future.done():
                if isinstance(answer, Rejection):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

        self._alive()  # else the loss of a connection before this call would fail it
        token = self._calls.add(subject, settle)
        future.add_done_callback(lambda _: self._calls.drop(token))
        try:
            await self.publish(subject, payload, headers=headers, reply=f"{self.inbox}.{token}")
        except BaseException:
            future.cancel()
            raise
        return future

    async def call(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Message:
        """Send a request and wait for its one answer.

        Raises :class:`Unavailable` when nobody serves the subject, :class:`NotAllowed` when the
        credentials do not allow it, :class:`DeadlineExceeded` after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                return await (await self.begin(subject, payload, headers=headers))
        except TimeoutError:
            raise DeadlineExceeded(f"no answer on {subject} within {timeout:g} s") from None

    async def collect(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        last: Callable[[Message], bool],
        timeout: float = 10.0,
    ) -> list[Message]:
        """Send a request and return its answers up to the `last`, that one included.

        Raises as :meth:`call` does; `timeout` is for all of them.
        """
        answers: list[Message] = []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(answer: Message | Rejection) -> None:
            if done.done():
                return
            if isinstance(answer, Rejection):
                done.set_exception(answer)
                return
            answers.append(answer)
            if last(answer):
                done.set_result(None)

        self._alive()  # else the loss of a connection before this call would fail it
        token = self._calls.add(subject, settle)
        try:
            async with asyncio.timeout(timeout):
                await self.publish(subject, payload, reply=f"{self.inbox}.{token}")
                await done
        except TimeoutError:
            raise DeadlineExceeded(f"no end of {subject} within {timeout:g} s") from None
        finally:
            self._calls.drop(token)
            if not done.cancel() and not done.cancelled():
                done.exception()  # seen, also where the publish has told of it first
        return answers

    async def gather(
        self, subject: str, payload: bytes = b"", *, wait: float = 0.3
    ) -> list[Message]:
        """Ask everybody who listens and return what answers within `wait` seconds."""
        answers: list[Message] = []

        def collect(answer: Message | Rejection) -> None:
            if not isinstance(answer, Rejection):
                answers.append(answer)

        token = self._calls.add(subject, collect)
        try:
            await self.publish(subject, payload, reply=f"{self.inbox}.{token}")
            await asyncio.sleep(wait)
        finally:
            self._calls.drop(token)
        return answers

    async def subscribe(self, subject: str, callback: Callback, *, queue: str = "") -> Subscription:
        """Subscribe; when this returns, the server knows.

        Callbacks of one subscription run one after another: start a task for long work.
        Raises :class:`BadSubject`, and :class:`Unavailable` when NATS stays away.
        """
        subscription = Subscription(self, subject, queue, callback)
        client = self._alive() or await self._wait()
        self._subscriptions.append(subscription)
        try:
            await subscription.lay(client)
            await self.unless_lost(client.flush())
        except nats.errors.BadSubjectError:
            self.forget(subscription)  # else no connection would ever be laid again
            raise BadSubject(f"NATS refuses the subject {subject[:200]!r}") from None
        except (nats.errors.Error, OSError):
            pass  # it is in the list: the next connection lays it
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Do not lay this subscription on a new connection."""
        with contextlib.suppress(ValueError):
            self._subscriptions.remove(subscription)

    async def unless_lost(self, work: Coroutine[Any, Any, object]) -> None:
        """Do this on the connection of now, or leave it when that is lost: it might never end."""
        doing, lost = asyncio.create_task(work), asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({doing, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.end(doing, lost)
            if not doing.cancelled():
                doing.exception()  # seen: the connection's own end says what there is to say

    # --- inside --------------------------------------------------------------------------------

    def _alive(self) -> NatsClient | None:
        """The client, if it is not closed: nats-py tells of that a little later."""
        client = self._client
        if client is not None and client.is_closed:
            self._gone(client)
            return None
        return client

    async def _wait(self) -> NatsClient:
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

    async def _error(self, error: Exception) -> None:
        """nats-py tells of a permission violation only here: pass it to the call that met it."""
        self._trouble = error
        denied = _DENIED.search(str(error))
        if denied is None:
            if self._client is not None and not isinstance(error, _LOST):
                log.warning("nats", name=self.name, why=reason(error))
            return
        log.error("not allowed", name=self.name, what=denied[1], subject=denied[2])
        self._calls.denied(denied[1], denied[2])


def _inbox_of(path: Path) -> str:
    """The inbox prefix that these credentials allow."""
    text = creds_files.load(path)
    tenant = creds_files.tenant_of(text)
    if tenant is not None:
        return roles.tenant_inbox_prefix(tenant)
    return roles.inbox_prefix(creds_files.public_key_of(text))
