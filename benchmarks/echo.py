"""The work that both sides do: decode a small typed message and answer with it."""

from __future__ import annotations

from msgspec import Struct

from tenantry import Context, Service


class Echo(Struct, frozen=True):
    """About 250 bytes of JSON."""

    sku: str
    quantity: int
    note: str


service = Service("bench", version="1.0.0", concurrency=256)


@service.request("echo", public=True)
async def echo(_ctx: Context, message: Echo) -> Echo:
    """Answer with the same."""
    return message
