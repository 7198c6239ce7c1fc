"""What the demo claims, checked against what each tenant's ledger says in the end."""

from __future__ import annotations

from typing import NamedTuple

from tenantry.demo.recovery import ACCIDENT, ORDERS, Recovery
from tenantry.demo.shopper import IMPORTED, PLACED, Shopper

PRICES = {PLACED: 1250, IMPORTED: 399}
"""The shop's prices: they tell in the total how many orders came which way."""


class Books(NamedTuple):
    """What a ledger holds, split by the way the orders came."""

    placed: int
    imported: int

    @classmethod
    def read(cls, orders: int, cents: int) -> Books | None:
        """Solve placed + imported = orders, with each at its price = cents; None where it can't."""
        rest = cents - orders * PRICES[IMPORTED]
        placed, odd = divmod(rest, PRICES[PLACED] - PRICES[IMPORTED])
        return None if odd or not 0 <= placed <= orders else cls(placed, orders - placed)


class Check(NamedTuple):
    """One claim, and whether it held."""

    claim: str
    held: bool
    figures: str


def settled(shopper: Shopper, books: Books | None) -> bool:
    """Whether a ledger has caught up with what its tenant was promised."""
    tally = shopper.tally
    placed = tally.answered - tally.stored
    return books is not None and books.placed >= placed and books.imported >= tally.stored


def check(shoppers: list[Shopper], books: dict[str, Books | None], walls: int) -> list[Check]:
    """Every claim with its figures."""
    kept, added = [], []
    for shopper in shoppers:
        tally, book = shopper.tally, books[shopper.tenant]
        placed = tally.answered - tally.stored
        kept.append(
            book is not None and tally.stored <= book.imported <= tally.stored + tally.unsure
        )
        added.append(book is not None and placed <= book.placed <= placed + tally.lost)
    stored = sum(shopper.tally.stored for shopper in shoppers)
    answered = sum(len(shopper.tally.latencies) for shopper in shoppers)
    foreign = sum(shopper.tally.foreign for shopper in shoppers)
    effects = sum(book.imported for book in books.values() if book)
    unsure = sum(shopper.tally.unsure for shopper in shoppers)
    refused = sum(len(shopper.walls) for shopper in shoppers)
    return [
        Check(
            "every acknowledged command had its effect, once",
            all(kept),
            f"{stored} acknowledged, {effects} effects, {unsure} unsure",
        ),
        Check(
            "the ledgers add up to the answered orders",
            all(added) and answered > 0,
            ", ".join(f"{name}: {book.placed if book else '?'}" for name, book in books.items()),
        ),
        Check(
            "no tenant saw a foreign reply",
            foreign == 0 and answered > 0,
            f"{answered} answers looked at, {foreign} foreign",
        ),
        Check(
            "no tenant could reach into another",
            refused >= walls,
            f"{walls} tries, {refused} refused by the server",
        ),
    ]


def check_recovery(recovery: Recovery) -> Check:
    """The ledger was right, then wrong by the accident, then right again: each to the cent."""
    right = (ORDERS, ORDERS * PRICES[IMPORTED])
    wrong = (ORDERS, right[1] + ACCIDENT)
    seen = (recovery.before, recovery.corrupted, recovery.after)
    return Check(
        "the corrupted ledger is what it was before the accident",
        seen == (right, wrong, right),
        ", then ".join(f"{cents} cents in {orders} orders" for orders, cents in seen),
    )
