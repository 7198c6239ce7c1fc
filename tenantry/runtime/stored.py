"""Messages of the journal: each is handled in its turn, and what it raises says what comes next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog

from tenantry import subjects
from tenantry.bus.jetstream import Delivery
from tenantry.context.claims import Claims
from tenantry.context.context import Context
from tenantry.context.turn import Turn
from tenantry.errors import HandlerFailed, Rejection, Superseded, UnknownKey
from tenantry.runtime.runner import Runner
from tenantry.service.handler import Handler
from tenantry.wire import headers, trace

_RESET = 300.0
"""Longest that a reset hook may take, seconds."""

_KEY_TRIES = 6
"""A key can be younger here than at the signer; after about six seconds it does not exist."""

log = structlog.get_logger("tenantry.dispatch")


class Permanent(Exception):
    """A stored message that no retry can help; `rejection` says why."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection


class Incoming(Protocol):
    """A message as a lane delivers it, or as it is read from the journal."""

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


class StoredMessages:
    """The stored messages for one service in one instance."""

    def __init__(self, runner: Runner) -> None:
        self.stats = runner.stats
        self._runner = runner
        self._service = runner.service

    def claims(self, message: Incoming, delivery: Delivery) -> Claims | None:
        """Whose a message is, verified; None where `handle` will refuse it."""
        tenant = message.subject.split(".", 3)[2]
        return self._runner.claims(tenant, message.headers or {}, delivery.stored)

    async def handle(
        self, handler: Handler, message: Incoming, delivery: Delivery, turn: Turn
    ) -> None:
        """Handle one message of the journal in its turn.

        Raises :class:`Permanent` for what can never succeed, :class:`Superseded` for what must not
        count any more, another :class:`Rejection` for what may succeed at another try.
        """
        began = time.perf_counter_ns()
        error = ""
        address = subjects.parse_stored(message.subject)
        tally = self._runner.stats.began(address.tenant)
        incoming = message.headers or {}
        with trace.span(
            f"process {handler.name}",
            trace.KIND_CONSUMER,
            trace.extract(incoming),
            {
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.template": f"tenant.*.{handler.name}",
                "tenant.id": address.tenant,
            },
        ) as span:
            try:
                context = self._runner.context(
                    # A follower acts as its own service, whoever emitted the event.
                    subjects.Address(address.tenant, self._service.name, address.action),
                    incoming,
                    span.trace,
                    delivery.stored,
                    message_id=message_id(incoming, delivery.seq),
                    attempt=delivery.attempt,
                    seq=delivery.seq,
                    turn=turn,
                )
                body = handler.decode(message.data)
                if not turn.replaying:
                    # Before it runs, so that a deleted tenant's backlog stops here.
                    await self._runner.outbox.refresh(context)
                await self._runner.run(handler, context, body, handler.timeout, span.trace.trace_id)
            except Superseded as late:
                error = late.code
                raise
            except Exception as failure:  # noqa: BLE001  (whatever it is, the message is settled)
                rejection = self._runner.outward(handler, failure, span.trace.trace_id)
                error = rejection.code
                late_key = isinstance(rejection, UnknownKey) and delivery.attempt < _KEY_TRIES
                if not handler.retry.may_help(rejection) and not late_key:
                    raise Permanent(rejection) from None
                raise rejection from None
            finally:
                if error:
                    span.failed(error)
                stats = self._runner.stats
                stats.ended(handler.name, tally, time.perf_counter_ns() - began, error)
                stats.left(tally)

    async def reset(
        self, tenant: str, hook: Callable[[Context], Awaitable[None]], turn: Turn
    ) -> None:
        """Run the hook that clears a tenant's state; raises :class:`HandlerFailed`."""
        hop = trace.new()
        context = Context(
            self._runner.mesh,
            Claims(tenant=tenant, plan="", principal="replay", issued=0.0, expires=0.0),
            "",
            subjects.Address(tenant, self._service.name, "reset"),
            hop,
            message_id=f"reset:{hop.trace_id}",
            resources=self._runner.resources,
            turn=turn,
        )
        context.enter()
        try:
            async with asyncio.timeout(_RESET):
                await hook(context)
        except Exception as error:
            log.exception("reset failed", tenant=tenant, service=self._service.name)
            failed = HandlerFailed(f"the reset hook of {self._service.name} failed: {error}")
            failed.retry = False
            raise failed from None
        finally:
            context.close()


def message_id(incoming: Mapping[str, str], seq: int) -> str:
    """The id that all deliveries of a stored message share, a redriven one too."""
    return incoming.get(headers.MESSAGE_ID) or incoming.get(headers.MSG_ID) or f"journal:{seq}"
