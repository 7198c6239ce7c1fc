"""Trying every ten seconds whether the journal stores, for the log and the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from tenantry import metrics, tasks
from tenantry.bus import Bus
from tenantry.errors import TenantryError
from tenantry.journal.health import JournalHealth, probe
from tenantry.metrics import Attributes

_PERIOD = 10.0

log = structlog.get_logger("tenantry.tenants")


class JournalWatch:
    """Says when the journal stops to store or is full, and when that is over."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._health: JournalHealth | None = None
        self._task: asyncio.Task[None] | None = None
        self._forget: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Begin to probe."""
        if metrics.enabled():
            self._forget = [
                metrics.observe(metrics.JOURNAL_STORES, self._stores),
                metrics.observe(metrics.JOURNAL_USED, self._used),
            ]
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Probe no more."""
        await tasks.end(self._task)
        for forget in self._forget:
            forget()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD)
            try:
                health = await probe(self._bus)
            except TenantryError as error:
                health = JournalHealth(stores=False, why=error.message)
            if self._health is None or health.good != self._health.good:
                self._tell(health)
            self._health = health

    def _tell(self, health: JournalHealth) -> None:
        if not health.stores:
            log.error(
                "the journal does not store",
                why=health.why,
                hint="free space on its disk, then restart nats-server" if health.silent else "",
            )
        elif health.full:
            log.error("the journal is full: commands are refused", **_bytes(health))
        elif self._health is not None:
            log.info("the journal stores again", **_bytes(health))

    def _stores(self) -> Iterable[tuple[float, Attributes]]:
        return [] if self._health is None else [(float(self._health.stores), {})]

    def _used(self) -> Iterable[tuple[float, Attributes]]:
        health = self._health
        return [(health.used / health.limit, {})] if health and health.limit > 0 else []


def _bytes(health: JournalHealth) -> dict[str, int]:
    return {"used": health.used, "limit": health.limit}
