"""The lanes of one service in one replica: which of them it reads follows from who is alive."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from tenantry import streams, subjects
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.errors import DeclarationError, JetStreamError, Rejection
from tenantry.runtime import journal
from tenantry.runtime.dispatch import Dispatcher
from tenantry.runtime.lane import Lane
from tenantry.runtime.members import Members
from tenantry.service.service import Service

_AGAIN = 0.5

log = structlog.get_logger("tenantry.lanes")


class Lanes:
    """Takes and leaves lanes so that the live replicas share them evenly.

    Lane i belongs to the i-th live instance, counted around in the order of their ids. Every
    replica computes the same; where views differ for a moment, the pin decides.
    """

    def __init__(
        self, bus: Bus, service: Service, instance: str, dispatcher: Dispatcher, members: Members
    ) -> None:
        self._bus = bus
        self._service = service
        self._instance = instance
        self._members = members
        self._handlers = service.durable
        count = service.lanes if self._handlers else 0
        slots = max(1, service.concurrency // max(1, count))
        self._changes = [asyncio.Event() for _ in range(count)]
        self._lanes = [
            Lane(
                bus,
                journal.lane_name(service.name, index),
                dispatcher,
                self._handlers,
                slots=slots,
                lost=self._changes[index].set,
            )
            for index in range(count)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._longest = max((handler.timeout for handler in self._handlers.values()), default=0.0)
        """Another replica waits for what runs here: at most for the slowest handler, seconds."""
        self._until: float | None = None

    async def start(self) -> None:
        """Make sure of the consumers and begin to read the lanes of this replica."""
        for index in range(len(self._lanes)):
            await self._ensure(index)
        self._tasks = [
            asyncio.create_task(self._keep(index, lane)) for index, lane in enumerate(self._lanes)
        ]

    def changed(self) -> None:
        """The replicas alive have changed."""
        for change in self._changes:
            change.set()

    async def stop(self, deadline: float) -> None:
        """Leave all lanes; what runs in them may finish until `deadline` (loop time)."""
        self._until = deadline
        self.changed()
        if self._tasks:
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
                    await self._ensure(index)
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

    async def _ensure(self, index: int) -> None:
        """Create the lane's consumer, or bring it to what this version handles.

        An older version than the one that was last here only adds to the filters: what it does
        not know waits for the newer one, and would be passed over if it were filtered out.
        """
        service = self._service
        config = journal.lane_config(
            service.name, service.version, index, service.lanes, self._handlers.values()
        )
        try:
            info = await js.api(self._bus, f"CONSUMER.INFO.{streams.JOURNAL}.{config['name']}")
        except JetStreamError as error:
            if error.err_code != js.CONSUMER_NOT_FOUND:
                raise
        else:
            self._refuse_other_lanes(info["config"])
            if _version(info["config"]) > subjects.version_key(service.version):
                known = info["config"].get("filter_subjects") or [
                    info["config"].get("filter_subject")
                ]
                if set(config["filter_subjects"]) <= set(known):
                    return
                config["filter_subjects"] = sorted({*known, *config["filter_subjects"]})
                config["metadata"] = info["config"]["metadata"]
        await js.ensure_consumer(self._bus, streams.JOURNAL, config)

    def _refuse_other_lanes(self, current: dict[str, Any]) -> None:
        lanes = int(current.get("metadata", {}).get("tenantry.lanes", self._service.lanes))
        if lanes != self._service.lanes:
            raise DeclarationError(
                f"service {self._service.name} has {lanes} lanes in the journal and declares "
                f"{self._service.lanes}",
                hint=f"declare lanes={lanes}: changing them would deliver old messages again",
            )


def _version(config: dict[str, Any]) -> Any:
    """The version that last set up a consumer, as a sort key."""
    return subjects.version_key(config.get("metadata", {}).get("tenantry.version", "0.0.0"))
