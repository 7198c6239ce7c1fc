"""Durable work with state: what a command costs that reads and writes keys of `ctx.state`."""

from __future__ import annotations

from msgspec import Struct

from benchmarks.echo import Echo
from benchmarks.peers.meter import Meter
from tenantry import Context, Service


class Moved(Struct, frozen=True):
    """How often a tenant has moved something."""

    number: int


service = Service("kept", version="1.0.0", concurrency=256)
moved = service.event("moved", Moved)
_one, _two = Meter(), Meter()


@service.command("one", public=True)
async def one(ctx: Context, message: Echo) -> None:
    """Read and write one key."""
    found = await ctx.state.get("one", int)
    await ctx.state.put("one", 1 + (found.value if found is not None else 0))
    _one.take(message)


@service.command("two", public=True)
async def two(ctx: Context, message: Echo) -> None:
    """Read and write one key, write another one and emit an event."""
    found = await ctx.state.get("two", int)
    number = 1 + (found.value if found is not None else 0)
    await ctx.state.put("two", number)
    await ctx.state.put("copy", Moved(number))
    ctx.emit(moved, Moved(number))
    _two.take(message)
