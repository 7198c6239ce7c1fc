"""Publishing what a handler has left: into the journal, in its order, under ids that repeat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tenantry.bus import Bus, Message
from tenantry.bus import jetstream as js
from tenantry.context.context import Context, Staged
from tenantry.errors import JetStreamError, TenantryError, TooLarge, Unavailable
from tenantry.messages import RenewContext, RenewedContext
from tenantry.wire import codec, headers, problem

RENEW_SUBJECT = "platform.router.renew_context"

_MARGIN = 60.0
"""A context with less life than this is renewed before anything is sent with it, seconds."""

_KEPT = 10_000
_TIMEOUT = 5.0
_decode_renewed = msgspec.json.Decoder(RenewedContext).decode


class ForeignSubject(TenantryError):
    """Something would have been published under another tenant than its context's."""

    code = "foreign_subject"


class Renewer:
    """Gets a fresh context for a message that waited in the journal longer than its own lives."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._fresh: dict[str, tuple[str, float]] = {}

    async def token(self, context: Context) -> str:
        """A token that is good to send with; raises what the router answers."""
        now = time.time()
        if not context.seq or context.claims.expires - now > _MARGIN:
            return context.token
        kept = self._fresh.get(context.token)
        if kept is not None and kept[1] > now:
            return kept[0]
        ask = RenewContext(token=context.token, seq=context.seq)
        answer = await self._bus.call(RENEW_SUBJECT, codec.encode(ask), timeout=_TIMEOUT)
        if rejection := problem.load(answer.headers, answer.data):
            raise rejection
        token = _decode_renewed(answer.data).token
        if len(self._fresh) >= _KEPT:
            self._fresh.clear()
        self._fresh[context.token] = (token, now + _MARGIN)
        return token


class Outbox:
    """Publishes staged messages, several in flight, and waits until the journal has them all."""

    def __init__(self, bus: Bus, renewer: Renewer) -> None:
        self._bus = bus
        self._renewer = renewer

    async def refresh(self, context: Context) -> None:
        """Renew a stale context; raises what the router answers, above all TenantUnknown."""
        await self._renewer.token(context)

    async def publish(self, context: Context, staged: Sequence[Staged]) -> None:
        """Raises :class:`Unavailable` unless all are stored, :class:`TooLarge` where one can't be.

        A repeat within the journal's dedup window stores none twice. Nothing leaves under another
        tenant than the context's: :class:`ForeignSubject`.
        """
        for message in staged:  # all before the first: a half would be stored again at each retry
            _check_own(message, context)
            if len(message.body) > self._bus.max_body:
                raise TooLarge(f"{message.subject} has {len(message.body)} bytes")
        fields = {headers.CONTEXT: await self._renewer.token(context)}
        context.trace.inject(fields)
        timers = [message.timer for message in staged if message.timer is not None]
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._store(
                    (message, _fields(message, fields, context)) for message in staged
                )
                # A timer that is over before its schedule is stored would find nothing.
                await self._store((timer, dict(timer.headers)) for timer in timers)
        except TimeoutError:
            raise Unavailable("the journal does not answer", retry_after=1.0) from None
        except JetStreamError as error:
            if error.err_code == js.MESSAGE_TOO_LARGE:
                raise TooLarge(f"a message is refused: {error.message}") from None
            raise Unavailable(f"the journal refuses: {error.message}", retry_after=5.0) from None

    async def _store(self, messages: Iterable[tuple[Staged, dict[str, str]]]) -> None:
        """Publish them in their order, and return when all are stored."""
        acks: list[asyncio.Future[Message]] = []
        try:
            for message, fields in messages:
                acks.append(await js.begin_store(self._bus, message.subject, message.body, fields))
            for ack in acks:
                js.stored(await ack)
        finally:
            for ack in acks:
                if not ack.cancel() and not ack.cancelled():
                    ack.exception()  # seen: a second failure says no more than the first


def _check_own(message: Staged | None, context: Context) -> None:
    """Whatever a handler did to its context, the journal gets nothing in another one's place."""
    while message is not None:
        if message.subject.split(".", 2)[1:2] != [context.claims.tenant]:
            raise ForeignSubject(
                f"a message of {context.service} in the context of {context.claims.tenant} goes "
                f"to {message.subject}"
            )
        message = message.timer


def _fields(message: Staged, common: Mapping[str, str], context: Context) -> dict[str, str]:
    """The headers of one message. A schedule stays as long as it takes: the plan's retention
    begins when the command itself is in the journal."""
    fields = {**common, **message.headers}
    if message.msg_id:
        fields[headers.MSG_ID] = message.msg_id
    if context.claims.retention and message.timer is None:
        fields[headers.TTL] = f"{context.claims.retention}s"
    return fields
