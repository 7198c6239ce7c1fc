"""The lanes of one service in one replica: which of them it reads follows from who is alive."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from tenantry import subjects, tasks
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.errors import DeclarationError, JetStreamError, Rejection
from tenantry.runtime import journal
from tenantry.runtime.dispatch import Dispatcher
from tenantry.runtime.lane import Lane
from tenantry.runtime.members import Members
from tenantry.service.service import Service

_HANDOVER = 10.0
"""How long a replica may finish what runs in a lane before another takes it over, seconds."""

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
        self._lanes = [
            Lane(bus, service.name, index, dispatcher, self._handlers, slots=slots)
            for index in range(count)
        ]
        self._change = asyncio.Event()
        self._assigning: asyncio.Task[None] | None = None
        self._mending: list[asyncio.Task[None]] = []
        self._until: float | None = None

    async def start(self) -> None:
        """Make sure of the consumers and begin to read the lanes of this replica."""
        for index in range(len(self._lanes)):
            await self._ensure(index)
        if self._lanes:
            self._assigning = asyncio.create_task(self._assign())
            self._mending = [
                asyncio.create_task(self._mend(index, lane))
                for index, lane in enumerate(self._lanes)
            ]

    def changed(self) -> None:
        """The replicas alive have changed."""
        self._change.set()

    async def stop(self, deadline: float) -> None:
        """Leave all lanes; what runs in them may finish until `deadline` (loop time)."""
        self._until = deadline
        self._change.set()
        if self._assigning is not None:
            await self._assigning
        await tasks.end(*self._mending)

    def _owner(self, index: int) -> str:
        instances = sorted(self._members.instances(self._service.name)) or [self._instance]
        return instances[index % len(instances)]

    async def _assign(self) -> None:
        """The one place where lanes are taken and left, until the replica stops."""
        loop = asyncio.get_running_loop()
        while self._until is None:
            self._change.clear()
            mine = [self._owner(i) == self._instance for i in range(len(self._lanes))]
            await asyncio.gather(
                *(
                    lane.leave(loop.time() + _HANDOVER)
                    for lane, own in zip(self._lanes, mine, strict=True)
                    if not own
                )
            )
            for lane, own in zip(self._lanes, mine, strict=True):
                if own:
                    try:
                        await lane.take()
                    except Rejection as rejection:
                        log.warning("lane not taken", why=str(rejection))
                        self._change.set()
            if self._change.is_set():
                await asyncio.sleep(0.2)
            await self._change.wait()
        await asyncio.gather(*(lane.leave(self._until) for lane in self._lanes))

    async def _mend(self, index: int, lane: Lane) -> None:
        """A consumer that vanished (deleted, or the server was restored) is made again."""
        while True:
            await lane.lost.wait()
            await asyncio.sleep(1.0)
            lane.lost.clear()
            try:
                await self._ensure(index)
            except (Rejection, JetStreamError) as error:
                log.warning("lane not mended", lane=index, why=str(error))
                lane.lost.set()

    async def _ensure(self, index: int) -> None:
        """Create the lane's consumer, or widen it to what this version handles.

        Versions run side by side during a deploy: the newest one's filters hold.
        """
        service = self._service
        config = journal.lane_config(
            service.name, service.version, index, service.lanes, self._handlers.values()
        )
        try:
            info = await js.api(self._bus, f"CONSUMER.INFO.{journal.STREAM}.{config['name']}")
        except JetStreamError as error:
            if error.err_code != js.CONSUMER_NOT_FOUND:
                raise
        else:
            if not await self._supersedes(info["config"]):
                return
        await js.ensure_consumer(self._bus, journal.STREAM, config)

    async def _supersedes(self, current: dict[str, Any]) -> bool:
        """Whether this version's filters should replace those of the consumer that is there."""
        metadata = current.get("metadata", {})
        lanes = int(metadata.get("tenantry.lanes", self._service.lanes))
        if lanes != self._service.lanes:
            raise DeclarationError(
                f"service {self._service.name} has {lanes} lanes in the journal and declares "
                f"{self._service.lanes}",
                hint=f"declare lanes={lanes}: changing them would deliver old messages again",
            )
        version = metadata.get("tenantry.version", "0.0.0")
        if subjects.version_key(version) <= subjects.version_key(self._service.version):
            return True
        return version not in self._members.versions(self._service.name)
