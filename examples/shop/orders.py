"""Takes orders: one at a time as a request, many at once as a durable command."""

from __future__ import annotations

from tenantry import Context, Service, errors

from .messages import PRICES, ImportOrders, Order, OrderPlaced, PlaceOrder

service = Service("orders", version="1.0.0", description="takes a shop's orders")
placed = service.event("placed", OrderPlaced)


def take(ctx: Context, order: PlaceOrder, number: str) -> Order:
    """Price an order and record that it was placed."""
    if order.sku not in PRICES:
        raise errors.NotFound(f"no article {order.sku!r}", hint=f"try {', '.join(PRICES)}")
    total = PRICES[order.sku] * order.quantity
    ctx.emit(placed, OrderPlaced(number, order.sku, order.quantity, total))
    return Order(number, order.sku, order.quantity, total, order.reference)


@service.request("place", public=True, timeout=10.0)
async def place(ctx: Context, order: PlaceOrder) -> Order:
    """Take one order."""
    return take(ctx, order, ctx.id_for("order"))


@service.command("import", public=True)
async def import_orders(ctx: Context, batch: ImportOrders) -> None:
    """Take many orders; those for unknown articles are left out."""
    for index, order in enumerate(batch.orders):
        try:
            take(ctx, order, ctx.id_for(f"order {index}"))
        except errors.NotFound as error:
            ctx.log.warning("order left out", sku=order.sku, why=error.message)
