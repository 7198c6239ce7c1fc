"""What the shop's services say to each other and to their callers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

PRICES = {"A-1": 1250, "B-2": 399, "C-3": 10_000}
"""Cents by article."""

Quantity = Annotated[int, Meta(ge=1, le=1000)]


class PlaceOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """An order as a customer sends it."""

    sku: str
    quantity: Quantity = 1
    reference: Annotated[str, Meta(max_length=80)] = ""
    """The customer's own, given back with the order."""


class Order(Struct, frozen=True):
    """An order that was taken; `total` is in cents."""

    id: str
    sku: str
    quantity: int
    total: int
    reference: str = ""


class ImportOrders(Struct, frozen=True):
    """Many orders at once."""

    orders: tuple[PlaceOrder, ...]


class OrderPlaced(Struct, frozen=True):
    """An order was taken; `total` is in cents."""

    order: str
    sku: str
    quantity: int
    total: int


class Correction(Struct, frozen=True):
    """A change of a total by hand, in cents."""

    cents: int
    reason: str = ""


class Total(Struct, frozen=True):
    """What a tenant has sold so far; `cents` in all its `orders`."""

    orders: int = 0
    cents: int = 0


class TotalAnswer(Struct, frozen=True):
    """The answer of `ledger.total`."""

    orders: int
    cents: int
