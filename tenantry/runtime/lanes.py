"""The lanes of one service in one replica: which of them it reads follows from who is alive."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import structlog

from tenantry import streams, subjects
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.errors import JetStreamError, Rejection
from tenantry.messages import Cursor, Replay
from tenantry.rows import Rows
from tenantry.runtime import journal
from tenantry.runtime.attempts import Attempts
from tenantry.runtime.lane import Lane
from tenantry.runtime.members import Members
from tenantry.service.service import Service

_AGAIN = 0.5

log = structlog.get_logger("tenantry.lanes")


class Lanes:
    """Takes and leaves lanes so that the live replicas share them evenly.

    Each partition of the journal is a lane. Lane i belongs to the i-th live instance, counted
    around in the order of their ids. Every replica computes the same; where views differ for a
    moment, the pin decides.
    """

    def __init__(
        self,
        bus: Bus,
        service: Service,
        instance: str,
        attempts: Attempts,
        members: Members,
        cursors: Rows[Cursor],
        replays: Rows[Replay | None],
    ) -> None:
        self._bus = bus
        self._service = service
        self._instance = instance
        self._members = members
        self._handlers = service.durable
        self._changes = [asyncio.Event() for _ in range(subjects.PARTITIONS)]
        self._lanes = [
            Lane(
                bus,
                service,
                partition,
                attempts,
                cursors,
                replays,
                lost=self._changes[partition].set,
            )
            for partition in range(subjects.PARTITIONS if self._handlers else 0)
        ]
        for rows in (cursors, replays):
            rows.listen(self._look)
        self._tasks: list[asyncio.Task[None]] = []
        self._longest = max((handler.timeout for handler in self._handlers.values()), default=0.0)
        """Another replica waits for what runs here: at most for the slowest handler, seconds."""
        self._until: float | None = None

    async def start(self) -> None:
        """Make sure of the consumers and begin to read the lanes of this replica."""
        await asyncio.gather(*(self._ensure(lane) for lane in self._lanes))
        self._tasks = [
            asyncio.create_task(self._keep(index, lane)) for index, lane in enumerate(self._lanes)
        ]

    def _look(self, tenant: str) -> None:
        """Something is written about a tenant."""
        if self._lanes:
            self._lanes[subjects.partition(tenant)].tenants.look(tenant)

    def lag(self) -> int:
        """Messages of the journal that wait for this replica, as far as it was told."""
        return sum(lane.lag for lane in self._lanes)

    def dead(self) -> Counter[str]:
        """Dead letters of this replica, by code."""
        return sum((lane.letters.laid for lane in self._lanes), Counter())

    def changed(self) -> None:
        """The replicas alive have changed."""
        for change in self._changes:
            change.set()

    async def stop(self, deadline: float) -> None:
        """Leave all lanes; what runs in them may finish until `deadline` (loop time)."""
        self._until = deadline
        self.changed()
        if self._tasks:
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            _, late = await asyncio.wait(self._tasks, timeout=left)
            for lane in self._lanes if late else ():
                lane.cut_off()  # it was left for another replica before, with more time than this
            await asyncio.wait(self._tasks)

    def _owner(self, index: int) -> str:
        """Lanes are for the newest version alone: an older one may not know all it would get."""
        live = self._members.instances(self._service.name) or {
            self._instance: self._service.version
        }
        newest = max(live.values(), key=subjects.version_key)
        instances = sorted(name for name, version in live.items() if version == newest)
        return instances[index % len(instances)]

    async def _keep(self, index: int, lane: Lane) -> None:
        """Take and leave one lane as it falls to this replica or to another, until it stops."""
        change, loop = self._changes[index], asyncio.get_running_loop()
        while self._until is None:
            change.clear()
            try:
                if lane.lost:
                    await self._ensure(lane)
                    lane.lost = False
                if self._owner(index) == self._instance:
                    await lane.take()
                else:
                    await lane.leave(loop.time() + self._longest)
            except (Rejection, JetStreamError) as error:
                log.warning("lane not taken", lane=index, why=str(error))
                change.set()
                await asyncio.sleep(_AGAIN)
            await change.wait()
        await lane.leave(self._until)

    async def _ensure(self, lane: Lane) -> None:
        """Create the lane's consumer, or bring it to what this version handles.

        What an own command was once handled for stays in its filter: what is still in the journal
        for it would be passed over silently, and becomes a dead letter instead. An older version
        than the one that was last here only adds: what it does not know waits for the newer one.
        """
        name, version = self._service.name, self._service.version
        names = set(self._handlers)
        try:
            info = await js.api(
                self._bus,
                f"CONSUMER.INFO.{streams.JOURNAL}.{journal.lane_name(name, lane.partition)}",
            )
        except JetStreamError as error:
            if error.err_code != js.CONSUMER_NOT_FOUND:
                raise
            lane.made_anew()
            kept = journal.Unordered(lane.free)
        else:
            known = journal.names_of(info["config"])
            kept = journal.Unordered.of(info["config"])
            if lane.free <= kept.names:  # else the reader finds out since when they are
                kept = kept._replace(names=lane.free)
            lane.outdated = _version(info["config"]) > subjects.version_key(version)
            if lane.outdated:
                version = info["config"]["metadata"]["tenantry.version"]
                names |= known
            else:
                names |= {each for each in known if each.startswith(f"{name}.")}
        lane.names, lane.mark = frozenset(names), kept.mark if lane.free <= kept.names else None
        pairs = [subjects.split_action(each) for each in names]
        config = journal.lane_config(name, version, lane.partition, pairs, kept)
        await js.ensure_consumer(self._bus, streams.JOURNAL, config)


def _version(config: dict[str, Any]) -> Any:
    """The version that last set up a consumer, as a sort key."""
    return subjects.version_key(config.get("metadata", {}).get("tenantry.version", "0.0.0"))
