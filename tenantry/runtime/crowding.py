"""A tenant whose backlog fills its lane is read apart, so that the lane reaches the others.

A lane holds a few messages at a time, in the journal's order. Where they all are of one tenant, and
what comes after them would have to wait for long, the tenant's row says so as for one whose message
has failed: the lane passes its messages over, and `Behind` reads them from the journal. What runs
goes on: only when it has ended may the reader begin.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from tenantry.bus import Message
from tenantry.bus.jetstream import Delivery
from tenantry.errors import JetStreamError, LaneLost, Rejection
from tenantry.messages import Cursor
from tenantry.runtime.replaying import is_due

if TYPE_CHECKING:
    from tenantry.runtime.lane import Lane
    from tenantry.runtime.tenants import Tenant

_LOOK = 0.25
_WAITS = 1.0
"""Others may have to wait so long for one tenant's backlog, seconds."""

log = structlog.get_logger("tenantry.lane")


class Crowding:
    """Sees to it that no tenant fills a lane for long."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def look(self, tenant: Tenant) -> None:
        """A message of the tenant has come: begin to watch it where it has the lane for itself."""
        if tenant.watch is None and self._fills(tenant):
            tenant.watch = asyncio.create_task(self._watch(tenant))

    def passes(self, tenant: Tenant, seq: int) -> bool:
        """Whether a message is for the reader of the tenant apart, who waits for what runs."""
        return 0 < tenant.crowded < seq and tenant.crowded == tenant.running

    async def pass_over(self, tenant: Tenant, seq: int, message: Message) -> None:
        """Leave a message to the journal."""
        tenant.passed = max(tenant.passed, seq)
        await self._lane.settle(message)

    async def ended(self, tenant: Tenant, seq: int) -> None:
        """What ran while its tenant was set apart has ended: the reader goes on after it."""
        lane = self._lane
        if tenant.crowding and tenant.watch is not None:
            await asyncio.wait({tenant.watch})  # until the row is written
        if tenant.crowded == seq and lane.is_done(seq):
            try:
                await lane.cursors.change(tenant.name, lambda row: _after(row, seq))
            except (Rejection, JetStreamError) as error:
                # It runs once more, as after a crash: what it emits has the same ids.
                log.warning("place not noted", tenant=tenant.name, seq=seq, why=str(error))

    def _fills(self, tenant: Tenant) -> bool:
        return len(tenant.held) + 1 >= self._lane.size > 1

    def _may(self, tenant: Tenant) -> bool:
        """Whether it can be set apart just now: it is in order, and one of it runs."""
        lane = self._lane
        return (
            tenant.running > 0
            and not tenant.crowding
            and not tenant.crowded
            and tenant.behind is None
            and lane.ready()
            and not lane.cursors.of(tenant.name).behind
            and not is_due(lane.replays.of(tenant.name))
        )

    async def _watch(self, tenant: Tenant) -> None:
        """Set the tenant apart where its backlog would take for long at this pace."""
        try:
            while self._fills(tenant) and not self._lane.leaving:
                before = tenant.turns
                await asyncio.sleep(_LOOK)
                if not self._fills(tenant) or not self._may(tenant):
                    continue
                ahead = Delivery.of(tenant.held[max(tenant.held)]).pending + len(tenant.held)
                if ahead * _LOOK / max(tenant.turns - before, 0.5) > _WAITS:
                    await self._set_apart(tenant)
                    return
        finally:
            tenant.watch = None

    async def _set_apart(self, tenant: Tenant) -> None:
        lane, seq = self._lane, tenant.running
        turn = lane.turn(seq, row=lane.cursors.of(tenant.name))

        def apart(row: Cursor) -> Cursor:
            if row.behind or not turn.valid:
                raise LaneLost(f"{tenant.name} is read apart already")
            return msgspec.structs.replace(row, next=seq, since=seq, behind=True)

        tenant.crowding = seq
        try:
            await lane.cursors.change(tenant.name, apart)
        except (Rejection, JetStreamError) as error:
            log.warning("not set apart", tenant=tenant.name, seq=seq, why=str(error))
            return
        finally:
            tenant.crowding = 0
        if tenant.running != seq:
            return  # dropped meanwhile: the reader may begin at once
        tenant.crowded = seq
        log.info("read apart for its backlog", tenant=tenant.name, service=lane.service.name)
        while tenant.held and turn.valid and tenant.crowded == seq:
            later = max(tenant.held)
            if later < seq:
                return
            await self.pass_over(tenant, later, tenant.held.pop(later))


def _after(row: Cursor, seq: int) -> Cursor:
    """The row once message `seq` is done with, unless it is to be tried again."""
    if not row.behind or row.next != seq or row.failed or row.code:
        return row
    return msgspec.structs.replace(row, next=seq + 1)


def is_new(row: Cursor, seq: int) -> bool:
    """Whether the row was written for a backlog and says nothing of a failure of `seq` yet."""
    return row.behind and row.next == seq and not row.failed and not row.code
