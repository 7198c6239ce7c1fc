"""The durable work of Tenantry's side: a command that does nothing."""

from __future__ import annotations

from benchmarks.echo import Echo
from benchmarks.peers.meter import Meter
from tenantry import Context, Service

service = Service("drain", version="1.0.0", concurrency=256)
_meter = Meter()


@service.command("take", public=True)
async def take(_ctx: Context, message: Echo) -> None:
    """Do nothing."""
    _meter.take(message)
