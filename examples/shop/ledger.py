"""Keeps the books: follows `orders.placed` and answers with a tenant's total."""

from __future__ import annotations

from tenantry import Context, Service, errors

from .messages import OrderPlaced, Total, TotalAnswer

service = Service("ledger", version="1.0.0", description="adds up what a shop has sold")
REMEMBERED = 200


@service.on("orders.placed")
async def add(ctx: Context, event: OrderPlaced) -> None:
    """Add one order to its tenant's total, once, however often it is delivered."""
    entry = await ctx.state.get("total", Total)
    total = entry.value if entry else Total()
    if event.order in total.last:
        return
    last = (*total.last, event.order)[-REMEMBERED:]
    changed = Total(total.orders + 1, total.cents + event.total, last)
    if entry is None:
        await ctx.state.create("total", changed)
    else:
        await ctx.state.update("total", changed, entry.revision)


@service.request("total", public=True)
async def total(ctx: Context) -> TotalAnswer:
    """What the tenant has sold so far."""
    entry = await ctx.state.get("total", Total)
    if entry is None:
        raise errors.NotFound("nothing sold yet", hint="place an order first")
    return TotalAnswer(entry.value.orders, entry.value.cents)
