"""Has the mesh end what it has in hand of a tenant that is erased.

Every instance of a service is told: it drops the tenant's messages that it has in memory, cuts off
the handlers of stored ones, and answers how many still run. Requests end by their deadline. Whoever
owns the tenant's partition has to answer; one that is silent is fenced as any other owner would do.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from tenantry import subjects
from tenantry.bus import Bucket, Bus, api
from tenantry.bus import jetstream as js
from tenantry.bus.scan import find_last, scan
from tenantry.errors import BadMessage, JetStreamError, Unavailable
from tenantry.messages import Checkpoint, Erasure, InHand, Lease
from tenantry.operator.roles import ERASED
from tenantry.streams import JOURNAL
from tenantry.wire import codec

_WAIT = 0.4
"""Seconds to wait for answers."""

_ASKS = 2
"""So often in a row nothing may be in hand: what was on its way to a worker has come by then."""

_SILENT = 3.0
"""A lease that is not renewed for so long may be fenced, seconds: a bit more than its validity."""

_EVENTS = "tenants-events"
"""The consumer that publishes the events of tenants' records."""

log = structlog.get_logger("tenantry.journal")
_decode = codec.Decoder(InHand)


class WorkInHand:
    """The work that workers have in hand of one tenant; its end is awaited `patience` seconds."""

    def __init__(self, bus: Bus, tenant: str, *, patience: float) -> None:
        self._bus = bus
        self._tenant = tenant
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + patience
        self._renewed: dict[str, tuple[int, float]] = {}
        """By lease of a silent owner, its last revision and since when it is known."""

    async def end(self) -> None:
        """Return when nothing is in hand of what the journal had until now.

        Raises :class:`Unavailable` when something still is at the end of the patience.
        """
        info = await api(self._bus, f"STREAM.INFO.{JOURNAL}")
        erasure = Erasure(tenant=self._tenant, upto=int(info["state"]["last_seq"]))
        calm = 0
        while calm < _ASKS:
            busy = await self._busy(erasure)
            calm = 0 if busy else calm + 1
            if busy and self._loop.time() > self._end:
                raise Unavailable(
                    f"work for {self._tenant} has not ended: {', '.join(busy)}",
                    hint="wait for it or stop these workers, and erase it again",
                )

    async def _busy(self, erasure: Erasure) -> list[str]:
        """Tell all, and return who still has something in hand, or should have answered."""
        owners = await self._owners()
        busy = []
        for message in await self._bus.gather(ERASED, codec.encode(erasure), wait=_WAIT):
            try:
                answer = _decode(message.data)
            except BadMessage:
                continue
            name = f"{answer.service}/{answer.instance}"
            owners.pop(name, None)
            if answer.count:
                busy.append(name)
        busy += [name for name, lease in owners.items() if await self._is_alive(lease)]
        if not await self._is_told():
            busy.append("tenants, which has to publish the last events of its record")
        return sorted(busy)

    async def _owners(self) -> dict[str, str]:
        """The leases that own the tenant's partition, by the names of the instances."""
        prefix, number = "$KV.checkpoints.", subjects.partition(self._tenant)
        found = {}
        async for message in scan(self._bus, "KV_checkpoints", f"{prefix}*.{number}"):
            service = message.subject.removeprefix(prefix).partition(".")[0]
            try:
                owner = msgspec.json.decode(message.data or b"{}", type=Checkpoint).owner
            except msgspec.MsgspecError:
                log.warning("checkpoint unreadable", service=service, partition=number)
                continue
            if owner:
                found[f"{service}/{owner.rpartition('-')[0]}"] = f"{service}.{owner}"
        return found

    async def _is_alive(self, lease: str) -> bool:
        """Tell whether a silent owner may still go on; one that renews nothing is fenced."""
        record = await Bucket(self._bus, "leases", Lease).read(lease)
        if record is None or record.deleted:
            return False
        now = self._loop.time()
        revision, since = self._renewed.setdefault(lease, (record.revision, now))
        if revision != record.revision:
            self._renewed[lease] = record.revision, now
        elif now - since > _SILENT:
            log.warning("fenced", lease=lease, why="it is silent while its tenant is erased")
            ask = {"filter": f"$KV.leases.{lease}", "seq": revision + 1}
            await api(self._bus, "STREAM.PURGE.KV_leases", ask)
        return True

    async def _is_told(self) -> bool:
        """Tell whether the events of the tenant's own record are in the journal already."""
        last = await find_last(self._bus, "KV_tenants", f"$KV.tenants.{self._tenant}")
        try:
            info = await api(self._bus, f"CONSUMER.INFO.KV_tenants.{_EVENTS}")
        except JetStreamError as error:
            if error.status == js.NOT_FOUND:
                return True  # no tenants worker has ever run here
            raise
        return int(info["ack_floor"]["stream_seq"]) >= last
