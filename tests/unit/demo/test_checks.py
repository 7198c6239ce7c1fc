"""The demo's checks can fail: each of them, by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantry.demo.checks import PRICES, Books, check, check_recovery, settled
from tenantry.demo.recovery import ACCIDENT, ORDERS, Recovery
from tenantry.demo.shopper import IMPORTED, PLACED, Shopper, Tally


def shopper(**counts: int) -> Shopper:
    made = Shopper("acme", Path("acme.creds"), "nats://127.0.0.1:1", rate=1, imports=1)
    answered = counts.get("answered", 12)
    made.tally = Tally(stored=counts.get("stored", 2), answered=answered, latencies=[0.1] * 10)
    made.tally.lost = counts.get("lost", 0)
    made.tally.foreign = counts.get("foreign", 0)
    made.tally.unsure = counts.get("unsure", 0)
    made.walls = ["no"] * counts.get("walls", 2)
    return made


def held(made: Shopper, books: Books | None) -> list[bool]:
    return [one.held for one in check([made], {"acme": books}, walls=2)]


GOOD = Books(placed=10, imported=2)


def test_all_hold_when_the_ledger_has_what_was_promised() -> None:
    assert held(shopper(), GOOD) == [True] * 4


@pytest.mark.parametrize("imported", [1, 3])
def test_a_lost_or_doubled_command_is_found(imported: int) -> None:
    assert held(shopper(), GOOD._replace(imported=imported)) == [False, True, True, True]


def test_a_command_without_acknowledgement_may_have_its_effect() -> None:
    assert held(shopper(unsure=1), GOOD._replace(imported=3)) == [True] * 4


@pytest.mark.parametrize("placed", [9, 11])
def test_a_lost_or_doubled_order_is_found(placed: int) -> None:
    assert held(shopper(), GOOD._replace(placed=placed)) == [True, False, True, True]


def test_an_order_without_answer_may_have_its_effect() -> None:
    assert held(shopper(lost=1), GOOD._replace(placed=11)) == [True] * 4


def test_a_foreign_reply_is_found() -> None:
    assert held(shopper(foreign=1), GOOD) == [True, True, False, True]


def test_a_wall_that_lets_through_is_found() -> None:
    assert held(shopper(walls=1), GOOD) == [True, True, True, False]


def test_an_unreadable_ledger_is_found() -> None:
    assert held(shopper(), None)[:2] == [False, False]


@pytest.mark.parametrize(("placed", "imported"), [(0, 0), (3, 0), (0, 4), (5, 7)])
def test_books_are_split_by_price(placed: int, imported: int) -> None:
    cents = placed * PRICES[PLACED] + imported * PRICES[IMPORTED]
    assert Books.read(placed + imported, cents) == Books(placed, imported)


def test_books_that_do_not_add_up_are_none() -> None:
    assert Books.read(2, 1) is None


def test_a_ledger_behind_is_not_settled() -> None:
    assert not settled(shopper(), GOOD._replace(placed=9))


def test_a_ledger_that_has_caught_up_is_settled() -> None:
    assert settled(shopper(), GOOD)


RIGHT = (ORDERS, ORDERS * PRICES[IMPORTED])
WRONG = (ORDERS, RIGHT[1] + ACCIDENT)


@pytest.mark.parametrize(
    ("seen", "held"),
    [
        ((RIGHT, WRONG, RIGHT), True),
        ((RIGHT, WRONG, WRONG), False),
        ((RIGHT, RIGHT, RIGHT), False),
        ((WRONG, WRONG, RIGHT), False),
        ((RIGHT, WRONG, (RIGHT[0], RIGHT[1] - 1)), False),
        ((RIGHT, WRONG, (RIGHT[0] - 1, RIGHT[1])), False),
    ],
)
def test_a_recovery_counts_only_to_the_cent(
    seen: tuple[tuple[int, int], tuple[int, int], tuple[int, int]], held: bool
) -> None:
    recovery = Recovery("acme", *seen, quiet=(0.0, 1.0), busy=(1.0, 2.0))
    assert check_recovery(recovery).held is held


def test_latencies_are_told_apart_by_when_they_were_answered() -> None:
    tally = Tally(latencies=[0.1, 0.2, 0.3], times=[1.0, 2.0, 3.0])
    assert tally.between(2.0, 3.0) == [0.2]
