"""What an instance counts by tenant, on a clock of the test's own."""

from __future__ import annotations

import math

import pytest

from tenantry.messages.tallies import LATENCIES, TenantTally
from tenantry.runtime.tallies import IDLE, OTHERS, WINDOW, TallyBook, quantile


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(clock: Clock) -> TallyBook:
    return TallyBook(most=3, clock=clock)


def one(book: TallyBook, tenant: str = "acme") -> TenantTally:
    (found,) = book.of([tenant])
    return found


def handle(book: TallyBook, tenant: str, seconds: float = 0.001, *, failed: bool = False) -> None:
    tally = book.began(tenant)
    book.ended(tally, seconds, failed=failed)
    book.left(tally)


def admit(book: TallyBook, count: int, tenant: str = "acme") -> None:
    for _ in range(count):
        book.admitted(tenant)


def test_nobody_is_known_at_first(book: TallyBook) -> None:
    assert book.of(["acme"]) == []


def test_what_is_admitted_is_counted(book: TallyBook) -> None:
    admit(book, 3)
    assert one(book).handled == 3


def test_what_is_refused_is_counted_by_code(book: TallyBook) -> None:
    for code in ("rate_limited", "too_large", "rate_limited"):
        book.refused("acme", code)
    assert one(book).refused == {"rate_limited": 2, "too_large": 1}


def test_only_what_is_over_a_limit_counts_as_limited(book: TallyBook) -> None:
    book.refused("acme", "rate_limited")
    book.refused("acme", "too_large")
    assert (one(book).limited, one(book).errors) == (1.0, 1.0)


def test_a_steady_rate_is_told(book: TallyBook, clock: Clock) -> None:
    for _ in range(300):
        clock.now += 0.1
        book.admitted("acme")
    assert one(book).rate == pytest.approx(10, rel=0.05)


def test_a_rate_is_told_from_its_first_seconds_on(book: TallyBook, clock: Clock) -> None:
    for _ in range(20):
        book.admitted("acme")
        clock.now += 0.1
    assert one(book).rate == pytest.approx(10, rel=0.05)


def test_a_rate_fades(book: TallyBook, clock: Clock) -> None:
    admit(book, 100)
    clock.now += 1.5 * WINDOW
    assert one(book).rate == pytest.approx(5.0)


def test_a_rate_ends(book: TallyBook, clock: Clock) -> None:
    admit(book, 100)
    clock.now += 2 * WINDOW
    assert one(book).rate == 0.0


def test_to_look_changes_no_rate(book: TallyBook, clock: Clock) -> None:
    admit(book, 100)
    clock.now += 1.5 * WINDOW
    book.busiest(1)
    assert book.busiest(1) == [("acme", 5.0)]


def test_what_is_in_hand_is_told(book: TallyBook) -> None:
    book.began("acme")
    assert one(book).running == 1


def test_what_is_done_is_not_in_hand(book: TallyBook) -> None:
    handle(book, "acme")
    assert (one(book).running, one(book).handled) == (0, 1)


def test_what_was_cut_off_is_not_in_hand(book: TallyBook) -> None:
    book.left(book.began("acme"))
    assert (one(book).running, one(book).handled) == (0, 0)


def test_a_failure_is_counted(book: TallyBook) -> None:
    handle(book, "acme", failed=True)
    handle(book, "acme")
    assert (one(book).handled, one(book).failed, one(book).errors) == (2, 1, 1.0)


def test_latencies_are_told(book: TallyBook) -> None:
    for _ in range(99):
        handle(book, "acme", 0.002)
    handle(book, "acme", 0.6)
    latency = one(book).latency
    assert (quantile(latency, 0.5), quantile(latency, 0.99), quantile(latency, 1.0)) == (
        0.002,
        0.002,
        0.7,
    )


def test_latencies_of_the_last_window_count(book: TallyBook, clock: Clock) -> None:
    handle(book, "acme")
    clock.now += WINDOW
    handle(book, "acme")
    assert sum(one(book).latency) == 2


def test_old_latencies_are_forgotten(book: TallyBook, clock: Clock) -> None:
    handle(book, "acme")
    clock.now += 2 * WINDOW
    assert one(book).latency == ()


def test_the_slowest_have_a_bucket_too(book: TallyBook) -> None:
    handle(book, "acme", 1000.0)
    assert quantile(one(book).latency, 0.5) == math.inf


def test_without_messages_there_is_no_quantile() -> None:
    assert quantile((), 0.5) is None


def test_latencies_have_rising_bounds() -> None:
    assert list(LATENCIES) == sorted(set(LATENCIES))


def test_tenants_are_counted_apart(book: TallyBook) -> None:
    admit(book, 1)
    admit(book, 2, "globex")
    assert [each.handled for each in book.of(["acme", "globex"])] == [1, 2]


def test_who_is_idle_is_forgotten(book: TallyBook, clock: Clock) -> None:
    admit(book, 1)
    clock.now += IDLE + 0.1
    admit(book, 1, "globex")
    assert [len(book), book.of(["acme"])] == [1, []]


def test_who_has_something_in_hand_is_not_forgotten(book: TallyBook, clock: Clock) -> None:
    book.began("acme")
    clock.now += 10 * IDLE
    book.sweep()
    assert one(book).running == 1


def test_those_without_room_are_counted_together(book: TallyBook) -> None:
    for name in ("a", "b", "c", "d", "e"):
        admit(book, 1, name)
    assert len(book) == 4
    assert one(book, OTHERS).handled == 2


def test_where_somebody_is_idle_there_is_room(book: TallyBook, clock: Clock) -> None:
    for name in ("a", "b", "c"):
        admit(book, 1, name)
    clock.now += IDLE + 0.1
    admit(book, 1, "d")
    assert one(book, "d").handled == 1


async def test_the_first_are_told_in_order(book: TallyBook) -> None:
    for name, count in (("a", 2), ("b", 9), ("c", 5)):
        admit(book, count, name)
    assert [each.tenant for each in await book.first("rate", 2)] == ["b", "c"]


async def test_who_has_nothing_in_a_column_is_not_among_the_first(book: TallyBook) -> None:
    handle(book, "a")
    handle(book, "b", failed=True)
    assert [each.tenant for each in await book.first("errors", 5)] == ["b"]


async def test_the_first_by_what_is_in_hand(book: TallyBook) -> None:
    for name in ("a", "b", "b"):
        book.began(name)
    assert [each.tenant for each in await book.first("running", 5)] == ["b", "a"]


async def test_the_first_by_what_is_refused(book: TallyBook) -> None:
    admit(book, 9, "a")
    book.refused("b", "rate_limited")
    assert [each.tenant for each in await book.first("limited", 5)] == ["b"]


async def test_the_first_by_latency(book: TallyBook) -> None:
    handle(book, "a", 0.5)
    handle(book, "b", 2.0)
    assert [each.tenant for each in await book.first("latency", 5)] == ["b", "a"]


async def test_the_first_of_very_many(clock: Clock) -> None:
    book = TallyBook(clock=clock)
    for number in range(2500):
        book.admitted(f"t{number}")
    admit(book, 1, "t1700")
    assert [each.tenant for each in await book.first("rate", 1)] == ["t1700"]
