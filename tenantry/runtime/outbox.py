"""Publishing what a handler emits: into the journal, in its order, under ids that repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from tenantry import clock
from tenantry.bus import Bus, Message
from tenantry.bus import jetstream as js
from tenantry.context.context import Context, Staged
from tenantry.errors import JetStreamError, Rejection, TenantryError, TooLarge, Unavailable
from tenantry.messages import RenewContext, RenewedContext
from tenantry.wire import codec, headers, problem

RENEW_SUBJECT = "platform.router.renew_context"

_MARGIN = 60.0
"""A context with less life than this is renewed before anything is sent with it, seconds."""

_KEPT = 10_000
_TIMEOUT = 5.0
"""How long the acknowledgements of one batch may take, seconds."""

_BATCH = 256
"""How many messages are published before their acknowledgements are waited for."""

_decode_renewed = msgspec.json.Decoder(RenewedContext).decode


class ForeignSubject(TenantryError):
    """Something would have been published under another tenant than its context's."""

    code = "foreign_subject"


class Parcel(msgspec.Struct, frozen=True, array_like=True):
    """One message ready to be published, but for its context and trace."""

    subject: str
    headers: dict[str, str]
    body: bytes
    timer: bool = False
    """Whether it tells nats-server when a schedule is due: it is published after the others."""


class Renewer:
    """Gets a fresh context for a message that waited in the journal longer than its own lives."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._fresh: dict[str, tuple[str, float]] = {}

    async def token(self, context: Context) -> str:
        """A token that is good to send with; raises what the router answers."""
        return await self.renewed(context.token, context.seq, context.claims.expires)

    async def renewed(self, token: str, seq: int, expires: float) -> str:
        """A token that is good to send with, for the one that message `seq` came with.

        It is the same where it lives for a while or where `seq` is 0. `expires` is in seconds since
        the epoch. Raises what the router answers.
        """
        now = clock.now()
        if not seq or expires - now > _MARGIN:
            return token
        kept = self._fresh.get(token)
        if kept is not None and kept[1] > now:
            return kept[0]
        ask = RenewContext(token=token, seq=seq)
        answer = await self._bus.call(RENEW_SUBJECT, codec.encode(ask), timeout=_TIMEOUT)
        if rejection := problem.load(answer.headers, answer.data):
            raise rejection
        fresh = _decode_renewed(answer.data).token
        if len(self._fresh) >= _KEPT:
            self._fresh.clear()
        self._fresh[token] = (fresh, now + _MARGIN)
        return fresh


class Outbox:
    """Publishes staged messages, several in flight, and waits until the journal has them all."""

    def __init__(self, bus: Bus, renewer: Renewer) -> None:
        self.bus = bus
        self.renewer = renewer

    async def refresh(self, context: Context) -> None:
        """Renew a stale context; raises what the router answers, above all TenantUnknown."""
        await self.renewer.token(context)

    @staticmethod
    def is_stale(expires: float) -> bool:
        """Whether a context that expires then has to be renewed before anything is sent."""
        return expires - clock.now() <= _MARGIN

    async def publish(self, context: Context, staged: Sequence[Staged]) -> None:
        """Publish what a handler has left; raises as :meth:`parcels` and :meth:`send` do."""
        parcels = self.parcels(context, staged)
        fields = {headers.CONTEXT: await self.renewer.token(context)}
        await self.send(parcels, fields | handed_on(context))

    def parcels(self, context: Context, staged: Sequence[Staged]) -> list[Parcel]:
        """Make staged messages ready to be published: timers last, else in their order.

        All are checked before the first is sent: a half would be stored again at each retry. Raises
        :class:`TooLarge` where NATS can't take one, and :class:`ForeignSubject` for one that goes
        to another tenant than the context's.
        """
        parcels = []
        for message in staged:
            _check_own(message, context)
            if len(message.body) > self.bus.max_body:
                raise TooLarge(f"{message.subject} has {len(message.body)} bytes")
            parcels.append(Parcel(message.subject, _fields(message, context), message.body))
        timers = [message.timer for message in staged if message.timer is not None]
        parcels += [Parcel(each.subject, dict(each.headers), each.body, True) for each in timers]
        return parcels

    async def send(self, parcels: list[Parcel], fields: Mapping[str, str]) -> None:
        """Publish in this order, messages with these headers too; what is stored leaves the list.

        A repeat within the journal's dedup window stores none twice. Raises :class:`Unavailable`
        unless all are stored, :class:`TooLarge` where one can't be.
        """
        while parcels:
            # A timer that is over before its schedule is stored would find nothing.
            batch = [each for each in parcels[:_BATCH] if each.timer is parcels[0].timer]
            left: list[Parcel] = []
            try:
                await self._store(batch, fields, left)
            except TimeoutError:
                raise Unavailable("the journal does not answer", retry_after=1.0) from None
            except JetStreamError as error:
                if error.err_code in js.TOO_LARGE:
                    raise TooLarge(f"a message is refused: {error.message}") from None
                refused = f"the journal refuses: {error.message}"
                raise Unavailable(refused, retry_after=5.0) from None
            finally:
                parcels[: len(batch)] = left

    async def _store(
        self, batch: list[Parcel], fields: Mapping[str, str], left: list[Parcel]
    ) -> None:
        """Publish a batch and wait for all of it; adds to `left` what is not stored."""
        acks: list[asyncio.Future[Message]] = []
        waits = iter(batch)
        why: Rejection | JetStreamError | None = None
        try:
            async with asyncio.timeout(_TIMEOUT):
                for each in batch:
                    own = dict(each.headers) if each.timer else {**fields, **each.headers}
                    acks.append(await js.begin_store(self.bus, each.subject, each.body, own))
                for ack in acks:
                    try:
                        js.stored(await ack)
                    except (Rejection, JetStreamError) as error:
                        why = why or error
                        left.append(next(waits))
                    else:
                        next(waits)
        finally:
            left.extend(waits)
            for ack in acks:
                if not ack.cancel() and not ack.cancelled():
                    ack.exception()  # seen: a second failure says no more than the first
        if why is not None:
            raise why


def handed_on(context: Context) -> dict[str, str]:
    """The headers that a message hands on to those that it causes: its trace, and one hop more."""
    fields = {headers.HOPS: str(headers.hops(context.headers) + 1)}
    context.trace.inject(fields)
    return fields


def _check_own(message: Staged | None, context: Context) -> None:
    """Whatever a handler did to its context, the journal gets nothing in another one's place."""
    while message is not None:
        if message.subject.split(".", 2)[1:2] != [context.claims.tenant]:
            raise ForeignSubject(
                f"a message of {context.service} in the context of {context.claims.tenant} goes "
                f"to {message.subject}"
            )
        message = message.timer


def _fields(message: Staged, context: Context) -> dict[str, str]:
    """The headers of one message but for context and trace.

    A schedule stays as long as it takes: the plan's retention begins when the command itself is in
    the journal.
    """
    fields = dict(message.headers)
    if message.msg_id:
        fields[headers.MSG_ID] = message.msg_id
    if context.claims.retention and message.timer is None:
        fields[headers.TTL] = f"{context.claims.retention}s"
    return fields
