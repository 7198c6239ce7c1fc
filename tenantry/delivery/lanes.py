"""The partitions of one service in one worker: claims and releases what falls to this instance."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import structlog

from tenantry import subjects
from tenantry.bus import Bus, Message, Subscription, Table
from tenantry.delivery import owner as owners
from tenantry.delivery.assignment import assign
from tenantry.delivery.checkpoints import Checkpoints
from tenantry.delivery.claim import claim
from tenantry.delivery.dead_letters import DeadLetters
from tenantry.delivery.environment import Attempts, Environment
from tenantry.delivery.leases import Leases
from tenantry.delivery.owner import Owner
from tenantry.delivery.suspects import Suspects
from tenantry.errors import JetStreamError, Rejection
from tenantry.messages import Cursor, Replay, Suspension
from tenantry.rows import Rows
from tenantry.service.service import Service

_AGAIN = 0.2

log = structlog.get_logger("tenantry.delivery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Tables of tenants, kept current, and the suspects of this process."""

    cursors: Rows[Cursor]
    replays: Rows[Replay | None]
    suspended: Table[Suspension]
    suspects: Suspects


class Lanes:
    """Which partitions this instance reads follows from who is alive: every one computes it."""

    def __init__(
        self, bus: Bus, service: Service, instance: str, attempts: Attempts, known: Known
    ) -> None:
        self._bus = bus
        self._service = service
        self._hints = [asyncio.Event() for _ in range(subjects.PARTITIONS)]
        self._changes = [asyncio.Event() for _ in range(subjects.PARTITIONS)]
        self._owned: dict[int, Owner] = {}
        self._leases = Leases(
            bus,
            service.name,
            service.version,
            instance,
            changed=self._changed,
            fenced=self._fenced,
            renewed=self._renewed,
        )
        self._env = Environment(
            bus=bus,
            service=service,
            attempts=attempts,
            cursors=known.cursors,
            replays=known.replays,
            suspended=known.suspended,
            checkpoints=Checkpoints(bus, service.name),
            leases=self._leases,
            letters=DeadLetters(bus, service.name),
            suspects=known.suspects,
        )
        known.replays.listen(self._look)
        self._assigned: dict[int, str] = {}
        self._longest = max((each.timeout for each in service.durable.values()), default=0.0)
        """Another replica waits for what runs here: at most for the slowest handler, seconds."""
        self._until: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Take a lease and begin to read what falls to this instance."""
        if not self._service.durable:
            return
        hints = owners.released_subject(self._service.name, "*")
        self._subscription = await self._bus.listen(hints, self._hinted)
        await self._leases.start()
        self._tasks = [
            asyncio.create_task(self._keep(partition)) for partition in range(subjects.PARTITIONS)
        ]

    async def stop(self, deadline: float) -> None:
        """Release all partitions; what runs in them may finish until `deadline` (loop time)."""
        self._until = deadline
        self._wake_all()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._leases.stop()
        if self._subscription is not None:
            await self._subscription.stop()

    def lag(self) -> int:
        """Messages of the journal that wait for this instance, as far as it was told."""
        return sum(owner.pending + owner.lane.held for owner in self._owned.values())

    def erased(self, tenant: str, upto: int) -> None:
        """End what is in hand of a tenant's stored messages up to `upto`: they were erased."""
        if (owner := self._owned.get(subjects.partition(tenant))) is not None:
            owner.erased(tenant, upto)

    def dead(self) -> Counter[str]:
        """Dead letters of this instance, by code."""
        return self._env.letters.written

    # --- inside --------------------------------------------------------------------------------

    def _look(self, tenant: str) -> None:
        """Something is written about a tenant's replay."""
        if (owner := self._owned.get(subjects.partition(tenant))) is not None:
            owner.look_at_replay(tenant)

    def _hinted(self, message: Message) -> None:
        partition = message.subject.rpartition(".")[2]
        if partition.isdecimal() and int(partition) < subjects.PARTITIONS:
            self._hints[int(partition)].set()

    def _changed(self) -> None:
        """An instance has come or gone."""
        self._assigned = assign(self._leases.instances())
        self._wake_all()

    def _wake_all(self) -> None:
        for event in (*self._changes, *self._hints):
            event.set()

    def _fenced(self) -> None:
        for owner in list(self._owned.values()):
            owner.lose("others took this instance for dead")

    def _renewed(self) -> None:
        for owner in self._owned.values():
            owner.renewed()

    def _wanted(self, partition: int) -> bool:
        lease = self._leases.id
        return self._until is None and bool(lease) and self._assigned.get(partition) == lease

    async def _keep(self, partition: int) -> None:
        """Claim and release one partition as it falls to this instance or to another."""
        change = self._changes[partition]
        while self._until is None:
            change.clear()
            try:
                if self._wanted(partition):
                    await self._hold(partition)
            except (Rejection, JetStreamError) as error:
                log.warning("partition not claimed", partition=partition, why=str(error))
                await asyncio.sleep(_AGAIN)
                continue
            except Exception:
                log.exception("partition not claimed", partition=partition)
                await asyncio.sleep(_AGAIN)
                continue
            if not self._wanted(partition):
                await change.wait()

    async def _hold(self, partition: int) -> None:
        """Claim a partition and hold it for as long as it is wanted."""
        taken = await claim(
            self._env, partition, self._hints[partition], lambda: self._wanted(partition)
        )
        if taken is None:
            await asyncio.sleep(_AGAIN)
            return
        change = self._changes[partition]
        owner = Owner(self._env, taken, lost=lambda _: change.set())
        self._owned[partition] = owner
        try:
            if taken.lease != self._leases.id:
                owner.lose("others took this instance for dead")
            await owner.start()
            while not owner.is_lost and self._wanted(partition):
                change.clear()
                await change.wait()
            patience = asyncio.get_running_loop().time() + self._longest
            await owner.release(
                lambda: patience if self._until is None else self._until,
                ending=lambda: self._until is not None,
            )
        finally:
            self._owned.pop(partition, None)
            await owner.end()
