"""Commands whose time has come: nats-server tells, and they go into the journal.

A timer carries nothing but an id. The schedule itself stays where the service has stored it until
the journal has the command, under an id that is always the same: a kill in between publishes it
again, and the journal drops the copy.
"""

from __future__ import annotations

import time

import structlog

from tenantry import schedules, subjects
from tenantry.bus import Bus, Message, Table
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.context.claims import Claims
from tenantry.context.token import KeyRing, Mints, terms
from tenantry.errors import BadContext, BadSubject, JetStreamError, TooLarge, UnknownKey
from tenantry.messages import Plan, Tenant
from tenantry.plans import limits_of
from tenantry.schedules import Kept
from tenantry.streams import TIMERS
from tenantry.wire import headers, trace
from tenantry_workers.tenants.outbox import DurableOutbox, NotYet

CONSUMER = "tenants-schedules"

_ACK_WAIT = 4.0
_PIN_TIMEOUT = 6.0
_AT_ONCE = 256
_TRIES = 15
"""A tenant or a key can be younger than what is known here; after so many tries, a second apart,
there is none."""

log = structlog.get_logger("tenantry.tenants")


class DueSchedules:
    """Publishes what is due; of several replicas one does, and another when it dies."""

    def __init__(
        self,
        bus: Bus,
        minter: Mints,
        ring: KeyRing,
        tenants: Table[Tenant],
        plans: Table[Plan],
    ) -> None:
        self._bus = bus
        self._minter = minter
        self._ring = ring
        self._tenants = tenants
        self._plans = plans
        config = {
            "name": CONSUMER,
            "durable_name": CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": int(_ACK_WAIT * 1e9),
            # What a suspended tenant has waiting counts too: a limit would stop everybody else.
            "max_ack_pending": -1,
            "filter_subjects": ["due.>"],
            # One reader at a time: nats-server tells in no order what falls due together.
            "priority_groups": ["due"],
            "priority_policy": "pinned_client",
            "priority_timeout": int(_PIN_TIMEOUT * 1e9),
        }
        self._outbox = DurableOutbox(bus, TIMERS, config, self._publish, rank=_rank, room=_AT_ONCE)

    async def start(self) -> None:
        """Make the consumer and begin."""
        await self._outbox.start()

    async def stop(self) -> None:
        """Stop; what is under way comes again."""
        await self._outbox.stop()

    async def _publish(self, message: Message) -> None:
        """See to one that is due."""
        _, name, service, key = message.subject.split(".")
        told_by = (message.headers or {}).get(headers.SCHEDULER)
        if told_by != subjects.timer(name, service, key):
            # nats-server lets a timer of one tenant tell of another's schedule.
            log.warning("timer ignored", subject=message.subject, told_by=told_by)
            return
        kept = await schedules.read(self._bus, subjects.schedule(name, service, key))
        if kept is None:
            return  # cancelled, or published already
        tenant, attempt = self._tenants.get(name), Delivery.of(message).attempt
        if tenant is None:
            _wait_or_drop(kept, "there is no such tenant", attempt)
        elif tenant.state == "deleted":
            log.warning("schedule dropped", why="the tenant was deleted", **_about(kept))
        elif tenant.state == "suspended":
            raise NotYet(_pause(attempt, time.time()))
        else:
            await self._send(tenant, kept, attempt)
        await schedules.drop(self._bus, kept)

    async def _send(self, tenant: Tenant, kept: Kept, attempt: int) -> None:
        """Into the journal; what can never be sent is dropped with an error in the log."""
        token = kept.headers.get(headers.CONTEXT, "")
        try:
            to = subjects.address(tenant.id, kept.schedule.command)
            claims = self._ring.verify(token, tenant.id, kept.schedule.stored)
            await js.store(
                self._bus,
                subjects.journal(to),
                kept.body,
                headers=self._fields(tenant, kept, claims),
            )
        except UnknownKey as rejection:
            _wait_or_drop(kept, rejection.message, attempt)
        except (BadContext, BadSubject, TooLarge) as rejection:
            log.error("schedule dropped", why=rejection.message, **_about(kept))
        except JetStreamError as error:
            if error.err_code not in js.TOO_LARGE:
                raise
            log.error("schedule dropped", why=error.message, **_about(kept))

    def _fields(self, tenant: Tenant, kept: Kept, claims: Claims) -> dict[str, str]:
        plan = limits_of(tenant, self._plans.rows, time.time())
        retention = plan.retention if plan is not None else claims.retention
        fields = {
            headers.MSG_ID: f"{tenant.id}.s.{kept.schedule.id}",
            headers.CONTEXT: self._minter.mint(
                tenant.id,
                tenant.plan,
                claims.principal,
                roles=claims.roles,
                cell=claims.cell,
                **terms(plan or claims),
            ),
        }
        if hops := headers.hops(kept.headers):
            fields[headers.HOPS] = str(hops)
        if retention:
            fields[headers.TTL] = f"{retention}s"
        (trace.extract(kept.headers) or trace.new()).inject(fields)
        return fields


def _wait_or_drop(kept: Kept, why: str, attempt: int) -> None:
    """For what may only not be known here yet; raises :class:`NotYet` while that can be."""
    if attempt < _TRIES:
        raise NotYet(1.0) from None
    log.error("schedule dropped", why=why, **_about(kept))


def _rank(message: Message) -> tuple[str, tuple[int, ...]]:
    """By tenant; then when it was due, what caused it, and its position there."""
    fields = message.headers or {}
    try:
        seq, _, index = fields.get(headers.ORDER, "").partition(".")
        place = (int(fields.get(headers.DUE, "")), int(seq), int(index))
    except ValueError:
        place = (0, 0, 0)
    return message.subject.split(".", 2)[1], place


def _pause(attempt: int, now: float) -> float:
    """How long a suspended tenant's schedules wait to be looked at again, seconds.

    Until a round time, so that what waits comes back together and can be put in order.
    """
    every = 2.0 if attempt < 10 else 30.0
    return every - now % every + 0.001


def _about(kept: Kept) -> dict[str, object]:
    """What a log may show: never the body."""
    schedule = kept.schedule
    return {
        "tenant": schedule.tenant,
        "schedule": schedule.id,
        "service": schedule.service,
        "command": schedule.command,
        "due": schedule.due,
    }
