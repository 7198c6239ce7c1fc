"""The tenants of a lane: the messages of each run one after another, those of different ones
side by side.

A message that fails sets its tenant apart (`Behind`): the lane passes its later ones over, and
nobody else waits.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog

from tenantry import subjects
from tenantry.bus import Message
from tenantry.bus.jetstream import Delivery
from tenantry.errors import JetStreamError, Rejection, Superseded
from tenantry.messages import Cursor
from tenantry.runtime.attempts import Outcome, about
from tenantry.runtime.behind import Apart, Behind
from tenantry.runtime.crowding import Crowding, is_new
from tenantry.runtime.replaying import is_due

if TYPE_CHECKING:
    from tenantry.runtime.lane import Lane

_AGAIN = 0.5

log = structlog.get_logger("tenantry.lane")


@dataclass(slots=True, kw_only=True)
class Tenant(Apart):
    """What one tenant has in a lane."""

    name: str
    running: int = 0
    """The sequence of what is being handled, or 0."""
    task: asyncio.Task[None] | None = None
    behind: Behind | None = None
    turns: int = 0
    """How many messages have been seen to."""
    watch: asyncio.Task[None] | None = None
    crowding: int = 0
    """What runs while it is being set apart for its backlog, …"""
    crowded: int = 0
    """… and since it is: the reader waits for it to end."""


class Tenants:
    """Those of whom something is here, and what is done about it."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._here: dict[str, Tenant] = {}
        self._crowding = Crowding(lane)

    # --- what comes and goes -------------------------------------------------------------------

    def hold(self, name: str, seq: int, message: Message) -> None:
        """Take a message; it runs when everything before it has."""
        tenant = self._of(name)
        if seq == tenant.running:
            return  # NATS has lost its memory, or patience; what we say at the end still counts
        if former := tenant.held.get(seq):
            self._lane.let_go(former)
        self._lane.keep(message)
        if self._crowding.passes(tenant, seq):
            self._lane.aside(self._crowding.pass_over(tenant, seq, message))
            return
        tenant.held[seq] = message
        self._crowding.look(tenant)
        if tenant.task is None:
            tenant.task = asyncio.create_task(self._serve(tenant))

    def let_go(self) -> None:
        """A new term begins: what is held here comes again, and so does what runs."""
        for tenant in self._here.values():
            tenant.held.clear()
            tenant.running = 0

    def leave(self) -> list[asyncio.Task[None]]:
        """Begin nothing new; what has to end before the lane may go."""
        every = list(self._here.values())
        apart = [each.behind.leave() for each in every if each.behind is not None]
        return apart + [each.task for each in every if each.task is not None]

    def clear(self) -> None:
        """Forget everybody."""
        for tenant in self._here.values():
            if tenant.watch is not None:
                tenant.watch.cancel()
        self._here.clear()

    def _of(self, name: str) -> Tenant:
        tenant = self._here.get(name)
        if tenant is None:
            tenant = self._here[name] = Tenant(name=name)
        return tenant

    def _forget_idle(self, tenant: Tenant) -> None:
        idle = tenant.task is None and not tenant.held and tenant.behind is None
        if idle and self._here.get(tenant.name) is tenant:
            del self._here[tenant.name]

    # --- who is apart --------------------------------------------------------------------------

    def apart(self) -> list[str]:
        """The tenants of this lane that are to be read apart."""
        names = {*self._lane.cursors.tenants(), *self._lane.replays.tenants()}
        return [name for name in names if self._is_ours(name) and self._wants(name)]

    def _is_ours(self, name: str) -> bool:
        return subjects.partition(name) == self._lane.partition

    def _wants(self, name: str) -> bool:
        return self._lane.cursors.of(name).behind or is_due(self._lane.replays.of(name))

    def look(self, name: str) -> None:
        """Read a tenant apart from the rest where a row says so."""
        if not self._wants(name) or not self._lane.ready():
            return
        tenant = self._of(name)
        if tenant.crowding or tenant.crowded:
            return
        if tenant.behind is None:
            tenant.behind = Behind(self._lane, name, tenant, lambda: self._caught_up(tenant))
        tenant.behind.wake()

    def look_at_all(self) -> None:
        """The same for all tenants of this lane."""
        for name in self.apart():
            self.look(name)

    def _caught_up(self, tenant: Tenant) -> None:
        tenant.behind = None
        self._forget_idle(tenant)

    async def sweep(self) -> None:
        """Look after tenants apart, and forget the rows that the lane has come past."""
        self.look_at_all()
        cursors = self._lane.cursors
        rows = [name for name in cursors.tenants() if self._is_ours(name)]
        stale = [n for n in rows if (row := cursors.of(n)).next and not row.behind]
        if stale:
            floor = await self._lane.consumer.floor()
            for name in stale:
                await cursors.change(name, lambda row: _forgotten(row, floor))

    # --- one message ---------------------------------------------------------------------------

    async def _serve(self, tenant: Tenant) -> None:
        """Run what is held of one tenant, in order, until nothing is."""
        try:
            while tenant.held and not self._lane.leaving:
                if not self._lane.settled.is_set():
                    await self._lane.settled.wait()
                async with tenant.lock:
                    if self._lane.leaving or not tenant.held or not self._lane.settled.is_set():
                        continue
                    seq = min(tenant.held)
                    message = tenant.held.pop(seq)
                    tenant.running = seq
                    try:
                        await self._take(tenant, seq, message)
                        if tenant.crowding or tenant.crowded:
                            await self._crowding.ended(tenant, seq)
                    finally:
                        tenant.running = tenant.crowded = 0
                        tenant.turns += 1
                self.look(tenant.name)
        finally:
            tenant.task = None
            self._forget_idle(tenant)
            self._lane.wake()

    async def _take(self, tenant: Tenant, seq: int, message: Message) -> None:
        """Handle one message and settle it; one that fails sets its tenant apart."""
        lane, row = self._lane, self._lane.cursors.of(tenant.name)
        if not lane.holds():
            lane.drop(message)  # it comes again, to whoever reads the lane then
            return
        if lane.is_done(seq):
            await lane.settle(message)
            return
        if row.behind or seq < row.next:
            await self._pass_over(tenant, seq, message, row)
            return
        handler = lane.handlers.get(message.subject.split(".", 3)[3])
        if handler is None:
            await self._set_apart(tenant, seq, message, lane.unknown(message.subject))
            return
        turn = lane.turn(seq, row=row)
        outcome, why = await lane.attempts.run(handler, message, Delivery.of(message), turn)
        if outcome is Outcome.DONE:
            await lane.settle(message)
        elif why is None or not turn.valid:
            lane.drop(message)
        elif outcome is Outcome.LATE:
            await self._too_late(message)
        elif (outcome is Outcome.HOPELESS or handler.retry.tries == 1) and await lane.lay_down(
            message, why
        ):
            await lane.settle(message)
        else:
            await self._set_apart(tenant, seq, message, why)

    async def _too_late(self, message: Message) -> None:
        """A message whose later ones have been handled: it can't be in order any more.

        It was handled before and its acknowledgement got lost, or it has been overtaken. Nobody can
        tell, so somebody should look: it becomes a dead letter.
        """
        why = Superseded("later messages of its tenant were handled before it came, or came again")
        if await self._lane.lay_down(message, why):
            await self._lane.settle(message)
        else:
            await asyncio.sleep(_AGAIN)
            self._lane.drop(message)

    async def _pass_over(self, tenant: Tenant, seq: int, message: Message, row: Cursor) -> None:
        """What is read apart, or has been: the journal keeps it."""
        try:
            if not await self._note_late(tenant.name, seq) and seq < row.since:
                await self._too_late(message)
                return
        except (Rejection, JetStreamError) as error:
            log.warning("place not noted", tenant=tenant.name, seq=seq, why=str(error))
            self._lane.drop(message)
            return
        tenant.passed = max(tenant.passed, seq)
        await self._lane.settle(message)
        self.look(tenant.name)

    async def _note_late(self, name: str, seq: int) -> bool:
        """What comes from before the place where a replay set its tenant apart was not handled.

        The live part begins with it, then; True where that is so.
        """
        replay = self._lane.replays.of(name)
        if replay is None or replay.generation is not None or not is_due(replay):
            return False
        if seq < self._lane.cursors.of(name).next:
            await self._lane.cursors.change(
                name,
                lambda row: msgspec.structs.replace(
                    row, next=min(row.next, seq), since=min(row.since, seq)
                ),
            )
        return True

    async def _set_apart(self, tenant: Tenant, seq: int, message: Message, why: Rejection) -> None:
        """Write down that this tenant is read apart from here on; only then let the lane go on."""
        lane = self._lane
        handler = lane.handlers.get(message.subject.split(".", 3)[3])
        pause = handler.retry.pause(1) if handler is not None else _AGAIN
        now, turn = time.time(), lane.turn(seq, row=lane.cursors.of(tenant.name))

        def apart(row: Cursor) -> Cursor:
            for_backlog = seq in (tenant.crowding, tenant.crowded) and is_new(row, seq)
            if row.behind and not for_backlog:
                return row
            return msgspec.structs.replace(
                row,
                next=seq,
                since=seq,
                behind=True,
                failed=0 if handler is None else 1,
                first_failed=now,
                retry_at=now + pause,
                code=why.code,
            )

        while turn.valid:
            try:
                await lane.cursors.change(tenant.name, apart)
            except (Rejection, JetStreamError) as error:
                log.warning("not set apart yet", tenant=tenant.name, seq=seq, why=str(error))
                await asyncio.sleep(_AGAIN)
                continue
            log.warning(
                "will retry",
                **about(message, seq),
                attempt=1,
                after=round(pause, 2),
                code=why.code,
            )
            tenant.passed = max(tenant.passed, seq)
            await lane.settle(message)
            self.look(tenant.name)
            return
        lane.drop(message)


def _forgotten(row: Cursor, floor: int) -> Cursor:
    """A row without its place, where the lane has come past it."""
    if row.behind or row.next > floor + 1:
        return row
    return Cursor(epoch=row.epoch, generation=row.generation, former=row.former)
