"""Writing the dead letters of a service: what it gives up on."""

from __future__ import annotations

import time
from collections import Counter
from typing import Protocol

import structlog
from msgspec import structs

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.errors import BadMessage, JetStreamError, Rejection, TooLarge
from tenantry.messages import DeadLetter
from tenantry.wire import headers, letter, trace

_THERE_ALREADY = "per subject"
"""What JetStream says of a second message on a subject that takes one; its code says less."""

_LOGGED = 2_000
"""Characters of a reason that the log shows."""

log = structlog.get_logger("tenantry.dead")


class Incoming(Protocol):
    """A message of the journal, however it was read."""

    @property
    def subject(self) -> str:
        """`journal.<partition>.<tenant>.<service>.<action>`."""
        ...

    @property
    def headers(self) -> dict[str, str] | None:
        """Its headers."""
        ...

    @property
    def data(self) -> bytes:
        """Its body."""
        ...


class DeadLetters:
    """Writes the dead letters of one service."""

    def __init__(self, bus: Bus, service: str) -> None:
        self.written: Counter[str] = Counter()
        """How many were written, by code."""
        self._bus = bus
        self._service = service

    async def write(
        self, message: Incoming, delivery: Delivery, why: Rejection, first_failed: float = 0.0
    ) -> None:
        """Make a dead letter of a message, once, however often this is repeated.

        Raises :class:`Rejection` or :class:`JetStreamError` where it can't be: then the message
        must stay where it is.
        """
        address = subjects.parse_stored(message.subject)
        incoming = message.headers or {}
        now = time.time()
        dead = DeadLetter(
            reason=why.code,
            detail=f"{why.message} ({why.cause})" if why.cause else why.message,
            attempts=delivery.attempt,
            service=self._service,
            action=address.name,
            seq=delivery.seq,
            stored=delivery.stored,
            first_failed=first_failed or now,
            at=now,
        )
        subject = subjects.dead(address.tenant, self._service, delivery.seq)
        # The subject takes no second one while the first is there; the id, for two minutes more,
        # none after that was redriven or dropped.
        own_id = {headers.MSG_ID: f"{address.tenant}.{self._service}.{delivery.seq}"}
        try:
            dead = await self._store(subject, dead, message, own_id)
        except JetStreamError as error:
            if _THERE_ALREADY not in error.message:
                raise
        else:
            self.written[why.code] += 1
        hop = trace.extract(incoming)
        log.error(
            "given up",
            tenant=address.tenant,
            action=address.name,
            seq=delivery.seq,
            attempts=delivery.attempt,
            code=why.code,
            why=why.logged[:_LOGGED],
            trace_id=hop.trace_id if hop is not None else "",
            # As one field: a handler chooses their names, and some mean something to a log.
            **({"members": repr(why.extensions)[:_LOGGED]} if why.extensions else {}),
            **({"cut": dead.cut} if dead.cut else {}),
        )

    async def _store(
        self, subject: str, dead: DeadLetter, message: Incoming, own_id: dict[str, str]
    ) -> DeadLetter:
        """Store the letter as it is, else without the body, else without the headers too.

        The last one has nothing of the message in it, so whatever a message is, its letter can be
        written. Returns the letter as it was stored.
        """
        incoming = message.headers or {}
        body_cut, all_cut = (structs.replace(dead, cut=part) for part in ("body", "all"))
        forms: tuple[tuple[DeadLetter, dict[str, str], bytes], ...] = (
            (dead, incoming, message.data),
            (body_cut, incoming, b""),
            (all_cut, {}, b""),
        )
        for each, fields, body in forms:
            try:
                await js.store(
                    self._bus, subject, body, headers={**letter.dump(each, fields), **own_id}
                )
            except (TooLarge, BadMessage):
                if each is all_cut:
                    raise
            except JetStreamError as error:
                if error.err_code not in js.TOO_LARGE or each is all_cut:
                    raise
            else:
                return each
        raise AssertionError("unreachable")
