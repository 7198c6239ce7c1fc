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
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg as Message
from nats.aio.subscription import Subscription as NatsSubscription

from tenantry import tasks
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

Callback = Callable[[Message], Awaitable[None]]
_DENIED = re.compile(
    r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE
)
_INBOXES = ("_INBOX.", "_MESH.")
_HEADERS = 4096
_MAX_BACKOFF = 2.0
_CONNECT = 8.0
_LOST = (nats.errors.UnexpectedEOF, OSError)

log = structlog.get_logger("tenantry.bus")


class NatsClient(Client):
    """nats-py's client without four of its traps (seen in 2.16.0).

    A header block that is not text, which any tenant's program can send, ends its reading for good.
    Its read loop ends, without a word and for good, at the PONG for a flush that was cancelled or
    timed out meanwhile: the connection stays open and hears nothing any more. It writes a PING
    before what waits to be written: a drain would lose what comes between PONG and UNSUB. And where
    something waits to be written when the connection is lost, it fails while it closes, half way:
    nobody is told, subscriptions and socket stay behind.
    """

    def when_deaf(self, tell: Callable[[], None]) -> None:
        """Call `tell` when reading ends, for whatever reason."""
        if self._reading_task is not None:
            self._reading_task.add_done_callback(lambda _: tell())

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except Exception:  # noqa: BLE001  (whatever it stumbles over, the next message counts)
            return None

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        if self._pending and self._transport is not None:
            self._transport.writelines(self._pending[:])
            self._pending = []
            self._pending_data_size = 0
        await super()._send_ping(future)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pings_outstanding = 0
        else:
            await super()._process_pong()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        try:
            await super()._close(status, do_cbs)
        except Exception as error:  # noqa: BLE001  (an OSError; with uvloop a RuntimeError)
            log.debug("closing once more", why=_reason(error))
            self._pending = []
            self._pending_data_size = 0
            self._status = Client.DISCONNECTED
            await super()._close(status, do_cbs)


class Subscription:
    """One subscription, which outlives the connections it is laid on."""

    def __init__(self, bus: Bus, subject: str, queue: str, callback: Callback) -> None:
        self.subject = subject
        self.queue = queue
        self._bus = bus
        self._callback = callback
        self._laid: NatsSubscription | None = None
        self._stopped = False

    async def lay(self, client: NatsClient) -> None:
        """Subscribe on this client, unless it was stopped meanwhile."""
        if self._stopped:
            return
        laid = await client.subscribe(self.subject, queue=self.queue, cb=self._guarded)
        if self._stopped:
            await laid.unsubscribe()
        else:
            self._laid = laid

    async def _guarded(self, message: Message) -> None:
        """nats-py ends a subscription silently when its callback raises CancelledError."""
        try:
            await self._callback(message)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            log.error("callback cancelled itself", subject=self.subject)
        except Exception:
            log.exception("callback failed", subject=self.subject)

    async def stop(self) -> None:
        """Receive no more, but first handle what has already come."""
        self._stopped = True
        self._bus.forget(self)
        laid, self._laid = self._laid, None
        if laid is not None:
            await self._bus.unless_lost(laid.drain())  # type: ignore[no-untyped-call]


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
        self._calls: dict[str, tuple[str, Callable[[Message | Rejection], None]]] = {}
        self._count = 0
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
        await bus.subscribe(f"{bus.inbox}.*", bus._answered)
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
                failures.append(f"{url}: {_reason(self._trouble or error)}")
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
        await _settle(client)

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
        self._fail_calls(Unavailable("the connection to NATS was lost"))
        if not self._closing:
            log.warning("connection lost", name=self.name, why=_reason(client.last_error))
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

    async def flush(self) -> None:
        """Return when the server has taken in all that was sent before."""
        if self._client is not None:
            await self.unless_lost(_settle(self._client))

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
        self._fail_calls(Unavailable("the connection to NATS is closed"))

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
        if headers and (size := _size(payload, headers)) > client.max_payload:
            # nats-py counts the body alone, and the server hangs up on what is over.
            raise TooLarge(f"with its headers the message has {size} bytes, more than NATS takes")
        try:
            await client.publish(subject, payload, reply, headers)
        except nats.errors.MaxPayloadError:
            raise TooLarge(f"the body has {len(payload)} bytes, more than NATS takes") from None
        except nats.errors.BadSubjectError:
            raise BadSubject(f"NATS refuses the subject {subject[:200]!r}") from None
        except nats.errors.BadHeaderError as error:
            raise BadMessage(f"NATS refuses the header {error.key[:80]!r}") from None
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"NATS is away: {_reason(error)}") from None

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
        token = self._register(subject, settle)
        future.add_done_callback(lambda _: self._calls.pop(token, None))
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

    async def gather(
        self, subject: str, payload: bytes = b"", *, wait: float = 0.3
    ) -> list[Message]:
        """Ask everybody who listens and return what answers within `wait` seconds."""
        answers: list[Message] = []

        def collect(answer: Message | Rejection) -> None:
            if not isinstance(answer, Rejection):
                answers.append(answer)

        token = self._register(subject, collect)
        try:
            await self.publish(subject, payload, reply=f"{self.inbox}.{token}")
            await asyncio.sleep(wait)
        finally:
            self._calls.pop(token, None)
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
            await self.unless_lost(_settle(client))
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

    def _register(self, subject: str, settle: Callable[[Message | Rejection], None]) -> str:
        self._count += 1
        token = str(self._count)
        self._calls[token] = (subject, settle)
        return token

    async def _answered(self, message: Message) -> None:
        entry = self._calls.get(message.subject.rpartition(".")[2])
        if entry is None:
            return
        subject, settle = entry
        headers: dict[Any, str] | None = message.headers
        if headers and not message.data and headers.get("Status") == "503":
            settle(Unavailable(f"nobody serves {subject} now"))
        else:
            settle(message)

    async def _error(self, error: Exception) -> None:
        """nats-py tells of a permission violation only here: pass it to the call that met it."""
        self._trouble = error
        denied = _DENIED.search(str(error))
        if denied is None:
            if self._client is not None and not isinstance(error, _LOST):
                log.warning("nats", name=self.name, why=_reason(error))
            return
        log.error("not allowed", name=self.name, what=denied[1], subject=denied[2])
        for subject, settle in list(self._calls.values()):
            if subject.lower() == denied[2].lower():  # nats-py tells it in lower case
                settle(NotAllowed(f"the credentials do not allow {denied[1]} to {subject}"))

    def _fail_calls(self, rejection: Rejection) -> None:
        for _, settle in list(self._calls.values()):
            settle(rejection)


def _inbox_of(path: Path) -> str:
    """The inbox prefix that these credentials allow."""
    text = creds_files.load(path)
    tenant = creds_files.tenant_of(text)
    if tenant is not None:
        return roles.tenant_inbox_prefix(tenant)
    return roles.inbox_prefix(creds_files.public_key_of(text))


async def _settle(client: NatsClient) -> None:
    """A barrier: nats-py writes a PING before pending commands, so only a second one is behind."""
    await client.flush()
    await client.flush()


def _size(payload: bytes, headers: Mapping[str, str]) -> int:
    """How many bytes the server counts: `NATS/1.0`, a line for each header, an empty one, body."""
    text = sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
    return len(payload) + text + 12


def _reason(error: BaseException | None) -> str:
    if isinstance(error, nats.errors.UnexpectedEOF):
        return "the server closed the connection"
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error or "closed").removeprefix("nats: ") or type(error).__name__
