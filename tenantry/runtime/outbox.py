"""Publishing what a handler has left: into the journal, in its order, under ids that repeat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from tenantry.bus import Bus, Message
from tenantry.bus import jetstream as js
from tenantry.context.context import Context, Staged
from tenantry.errors import JetStreamError, TooLarge, Unavailable
from tenantry.messages import RenewContext, RenewedContext
from tenantry.wire import codec, headers, problem

RENEW_SUBJECT = "platform.router.renew_context"

_MARGIN = 60.0
"""A context with less life than this is renewed before anything is sent with it, seconds."""

_KEPT = 10_000
_TIMEOUT = 5.0
_decode_renewed = msgspec.json.Decoder(RenewedContext).decode


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
        """Raises :class:`Unavailable` unless all are stored, :class:`TooLarge` before any is.

        A repeat within the journal's dedup window stores none twice.
        """
        for message in staged:  # all before the first: a half would be stored again at each retry
            if len(message.body) > self._bus.max_body:
                raise TooLarge(f"{message.subject} has {len(message.body)} bytes")
        fields = {headers.CONTEXT: await self._renewer.token(context)}
        context.trace.inject(fields)
        if context.claims.retention:
            fields[headers.TTL] = f"{context.claims.retention}s"
        acks: list[asyncio.Future[Message]] = []
        try:
            async with asyncio.timeout(_TIMEOUT):
                for message in staged:
                    own = {**fields, headers.MSG_ID: message.msg_id}
                    acks.append(await js.begin_store(self._bus, message.subject, message.body, own))
                for ack in acks:
                    js.stored(await ack)
        except TimeoutError:
            raise Unavailable("the journal does not answer", retry_after=1.0) from None
        except JetStreamError as error:
            raise Unavailable(f"the journal refuses: {error.message}", retry_after=5.0) from None
        finally:
            for ack in acks:
                if not ack.cancel() and not ack.cancelled():
                    ack.exception()  # seen: a second failure says no more than the first
