"""The bus: publish, call and subscribe over one connection that heals itself.

While the connection is away a publish waits, up to the bus's `patience`, and calls under way fail.
Subscriptions are laid again on each new client (see :mod:`tenantry.bus.link`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import nats.errors
import structlog

from tenantry.bus.calls import Calls
from tenantry.bus.client import NatsClient, reason
from tenantry.bus.link import Link
from tenantry.bus.message import Message
from tenantry.bus.subscription import Callback, Listener, Subscription
from tenantry.errors import (
    BadMessage,
    BadSubject,
    DeadlineExceeded,
    Rejection,
    TooLarge,
    Unavailable,
)
from tenantry.operator import creds as creds_files
from tenantry.operator import roles

__all__ = ["Bus", "Message", "Subscription"]

_OF_TENANTS = "request."
"""What begins the subject of a request that is some tenant's: its second token tells whose."""

HEADROOM = 16_384
"""Bytes of a message that bodies leave free: for up to 8 KiB of a program's own headers, a context
of up to 4 KiB, trace headers, and what a dead letter, a redrive or an import adds later."""

log = structlog.get_logger("tenantry.bus")


class Bus:
    """A self-healing connection: publish, call, subscribe."""

    def __init__(
        self,
        servers: Sequence[str],
        *,
        creds: str | Path | None = None,
        name: str = "tenantry",
        inbox: str | None = None,
        patience: float = 30.0,
    ) -> None:
        self.name = name
        self.creds = Path(creds) if creds is not None else None
        self._calls = Calls()
        self._subscriptions: list[Subscription] = []
        self._link = Link(
            servers,
            creds=creds,
            name=name,
            patience=patience,
            lay=self._lay,
            lost=self._calls.fail,
            denied=self._calls.denied,
            idle=self._calls.idle,
        )
        self._prefix = inbox
        """Of all inboxes; without, it is what the credentials allow."""

    # --- connection ----------------------------------------------------------------------------

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
        if creds:
            _inbox_of(Path(creds))  # says best what is wrong with them
        bus = cls(urls, creds=creds, name=name, inbox=inbox, patience=patience)
        try:
            await bus._link.connect()
            await bus.listen(f"{bus.inbox}.*", bus._calls.answered)
        except BaseException:
            await bus.close()  # cancelled on the way: nobody else would
            raise
        return bus

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` each time the connection is back and its subscriptions are laid.

        Returns a function that ends this.
        """
        return self._link.on_reconnect(listener)

    @property
    def inbox(self) -> str:
        """The prefix of what answers come to: of the connection of now, another after the next."""
        return self._link.inbox

    @property
    def connected(self) -> bool:
        """Whether there is a live connection now."""
        return self._link.connected

    @property
    def max_body(self) -> int:
        """The largest body that NATS takes beside all headers it may ever get, bytes.

        The server's limit may change with each connection: ask anew.
        """
        limit = self._link.max_payload
        return max(limit - HEADROOM, limit // 2)

    @property
    def server_version(self) -> str:
        """The version of the nats-server that this is connected to; empty while it is away."""
        return self._link.server_version

    async def flush(self) -> None:
        """Return when the server has taken in all that was sent before."""
        await self._link.flush()

    async def close(self) -> None:
        """Send what is pending and close."""
        await self._link.close()

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
        await self._publish(subject, payload, headers, reply)

    async def _publish(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        reply: str = "",
        *,
        token: str = "",
    ) -> None:
        """Publish; what has a `token` is a call, answered on the connection that it goes out on."""
        client = self._link.alive() or await self._link.wait()
        if token:
            reply = f"{client.inbox}.{token}"
        self._send(client, subject, payload, headers, reply)
        if client.choked:
            await client.taken()

    def post(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        reply: str = "",
        lazy: bool = False,
    ) -> bool:
        """Publish at once; False while the connection is lost. Raises as :meth:`publish` does.

        What is `lazy` may wait two milliseconds for company.
        """
        client = self._link.alive()
        if client is None:
            return False
        self._send(client, subject, payload, headers, reply, lazy=lazy)
        return True

    @staticmethod
    def _send(
        client: NatsClient,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None,
        reply: str,
        *,
        lazy: bool = False,
    ) -> None:
        try:
            client.send(subject, payload, reply, headers, lazy=lazy)
        except nats.errors.MaxPayloadError:
            raise TooLarge(
                f"the body has {len(payload)} bytes, with its headers more than NATS takes"
            ) from None
        except nats.errors.BadSubjectError:
            raise BadSubject(f"NATS refuses the subject {subject[:200]!r}") from None
        except nats.errors.BadHeaderError as error:
            raise BadMessage(f"NATS refuses the header {error.key[:80]!r}") from None
        except UnicodeEncodeError as error:
            raise BadMessage(f"UTF-8 can't carry {error.object[:200]!r}") from None
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"NATS is away: {reason(error)}") from None

    async def answer(
        self, message: Message, payload: bytes, *, headers: dict[str, str] | None = None
    ) -> bool:
        """Answer a request, into an inbox and nowhere else; False where that can't be.

        nats-server does not check a reply subject against anyone's permissions: answered blindly,
        `reply=$KV.keys.x` would write with ours (see docs/decisions/0005-reply-subjects.md). What a
        tenant is answered goes to a worker or into that tenant's inbox, whoever has forwarded it.
        Raises :class:`TooLarge`: then the asker should at least hear of it.
        """
        if not _may_answer(message):
            return False
        try:
            await self.publish(message.reply, payload, headers=headers)
        except TooLarge:
            raise
        except Rejection as rejection:
            log.warning("answer lost", subject=message.subject, why=str(rejection))
            return False
        return True

    def begun(self) -> None:
        """A listener tells that it has begun a task which will soon publish.

        What such tasks publish in their first step goes out together, one turn of the event loop
        sooner than it would.
        """
        client = self._link.alive()
        if client is not None:
            client.begun = True

    def answer_now(
        self, message: Message, payload: bytes, *, headers: dict[str, str] | None = None
    ) -> bool:
        """The same at once; False also while the connection is lost: then :meth:`answer` waits."""
        return _may_answer(message) and self.post(message.reply, payload, headers=headers)

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

        self._link.alive()  # else the loss of a connection before this call would fail it
        token = self._calls.add(subject, settle)
        future.add_done_callback(lambda _: self._calls.drop(token))
        try:
            await self._publish(subject, payload, headers, token=token)
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

        self._link.alive()  # else the loss of a connection before this call would fail it
        token = self._calls.add(subject, settle)
        try:
            async with asyncio.timeout(timeout):
                await self._publish(subject, payload, token=token)
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
            await self._publish(subject, payload, token=token)
            await asyncio.sleep(wait)
        finally:
            self._calls.drop(token)
        return answers

    async def subscribe(self, subject: str, callback: Callback, *, queue: str = "") -> Subscription:
        """Subscribe; when this returns, the server knows.

        Callbacks of one subscription run one after another: start a task for long work.
        Raises :class:`BadSubject`, and :class:`Unavailable` when NATS stays away.
        """
        return await self._subscribe(Subscription(self, subject, queue, callback))

    async def listen(self, subject: str, listener: Listener, *, queue: str = "") -> Subscription:
        """Subscribe with a plain function, called while nothing else is read: it must be quick.

        Raises as :meth:`subscribe` does.
        """
        return await self._subscribe(Subscription(self, subject, queue, listener=listener))

    async def _subscribe(self, subscription: Subscription) -> Subscription:
        client = self._link.alive() or await self._link.wait()
        self._subscriptions.append(subscription)
        try:
            await subscription.lay(client)
            await self.unless_lost(client.flush())
        except nats.errors.BadSubjectError:
            self.forget(subscription)  # else no connection would ever be laid again
            raise BadSubject(f"NATS refuses the subject {subscription.subject[:200]!r}") from None
        except (nats.errors.Error, OSError):
            pass  # it is in the list: the next connection lays it
        except BaseException:  # cancelled: nobody would ever stop it
            self.forget(subscription)
            await subscription.stop()
            raise
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Do not lay this subscription on a new connection."""
        with contextlib.suppress(ValueError):
            self._subscriptions.remove(subscription)

    async def unless_lost(self, work: Coroutine[Any, Any, object]) -> None:
        """Do this on the connection of now, or leave it when that is lost: it might never end."""
        await self._link.unless_lost(work)

    @property
    def renewals(self) -> int:
        """How often it went over to another connection by itself; the connection's name ends so."""
        return self._link.renewals

    async def renew(self) -> None:
        """Go over to the credentials that the file holds now, without missing anything.

        That happens by itself about a second after the file has changed. Raises
        :class:`ConnectionFailed`: then it goes on with those of before.
        """
        await self._link.renew()

    async def _lay(self, client: NatsClient) -> None:
        """Lay what is not laid on this client, which has an inbox of its own.

        On two connections at once all that comes to it would come twice.
        """
        if not client.inbox:
            prefix = self._prefix or (_inbox_of(self.creds) if self.creds else "_INBOX")
            client.inbox = f"{prefix}.{secrets.token_hex(8)}"
        for subscription in list(self._subscriptions):
            await subscription.lay(client)


def _may_answer(message: Message) -> bool:
    """Whether the reply subject is an inbox; for a tenant's request, one of that tenant."""
    reply = message.reply
    if reply.startswith("_MESH."):
        return True
    if not message.subject.startswith(_OF_TENANTS):
        return reply.startswith("_INBOX.")
    tenant = message.subject[len(_OF_TENANTS) :].partition(".")[0]
    return reply.startswith(f"_INBOX.{tenant}.")


def _inbox_of(path: Path) -> str:
    """The inbox prefix that these credentials allow."""
    text = creds_files.load(path)
    tenant = creds_files.tenant_of(text)
    if tenant is not None:
        return roles.tenant_inbox_prefix(tenant)
    return roles.inbox_prefix(creds_files.public_key_of(text))
