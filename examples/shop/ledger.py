"""Keeps the books: follows `orders.placed`, takes corrections, answers with a tenant's total.

All it knows is in `ctx.state` and follows from the journal, so its handlers are replayable: an
operator can rebuild one tenant's books (`tenantry replay`, `tenantry recover`).
"""

from __future__ import annotations

from tenantry import Context, Service, errors

from .messages import Correction, OrderPlaced, Total, TotalAnswer

service = Service("ledger", version="1.0.0", description="adds up what a shop has sold")


@service.on("orders.placed", replayable=True)
async def add(ctx: Context, event: OrderPlaced) -> None:
    """Add one order to its tenant's total. State counts once, however often this runs."""
    await _book(ctx, 1, event.total)


@service.command("correct", public=True, replayable=True)
async def correct(ctx: Context, correction: Correction) -> None:
    """Change the total by hand."""
    await _book(ctx, 0, correction.cents)


async def _book(ctx: Context, orders: int, cents: int) -> None:
    entry = await ctx.state.get("total", Total)
    total = entry.value if entry else Total()
    await ctx.state.put("total", Total(total.orders + orders, total.cents + cents))


@service.reset
async def reset(ctx: Context) -> None:
    """Close the books of one tenant before a replay writes them anew."""
    await ctx.state.clear()


@service.request("total", public=True)
async def total(ctx: Context) -> TotalAnswer:
    """What the tenant has sold so far."""
    entry = await ctx.state.get("total", Total)
    if entry is None:
        raise errors.NotFound("nothing sold yet", hint="place an order first")
    return TotalAnswer(entry.value.orders, entry.value.cents)
