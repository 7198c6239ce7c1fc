"""The bookkeeping of leases on a virtual clock, with an exact store that answers late.

The store here is the arithmetic of the script; that the script does the same is told against a
real server in tests/integration/limits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry_workers.router.limits import Decision, Meter
from tenantry_workers.router.limits.account import Account, Parked
from tenantry_workers.router.limits.counters import Counters
from tenantry_workers.router.limits.ledger import Answer, Ledger, Order

ROOM = 2e-3
"""What rounding may lose, messages."""


@dataclass
class Exact:
    """A bucket that leaks: how much more has been taken than it holds is `excess`."""

    rate: float
    burst: float
    held: float = 0.0
    at: float = 0.0
    excess: float = 0.0

    def leak(self, now: float) -> None:
        self.held = max(0.0, self.held - (now - self.at) * self.rate)
        self.at = now

    def put(self, now: float, count: float = 1.0) -> None:
        self.leak(now)
        self.held += count
        self.excess = max(self.excess, self.held - self.burst)


@dataclass
class Store:
    """What the script does, by meter."""

    buckets: dict[str, Exact] = field(default_factory=dict)

    def place(self, order: Order, now: float) -> list[Answer]:
        answers = []
        for line, charge, age, want in order.entries:
            meter = line.meter
            bucket = self.buckets.setdefault(meter.name, Exact(meter.rate, meter.burst))
            bucket.leak(max(bucket.at, now - age))
            bucket.held = max(0.0, bucket.held + charge)
            if meter.shadow:
                bucket.held = min(bucket.held, meter.burst)
            level = max(0.0, bucket.held - (now - bucket.at) * meter.rate)
            granted = max(0, min(want, int(meter.burst - level + 1e-3)))
            if granted:
                level += granted
                bucket.held, bucket.at = level, now
            room = meter.burst - level
            answers.append(Answer(granted, room, max(0.0, (1 - room) / meter.rate)))
        return answers


class Router:
    """One ledger, and what it has under way."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.counters = Counters()
        self.ledger = Ledger(self._due, self.counters)
        self.under_way: list[tuple[Order, list[Answer], float]] = []

    def _due(self, account: Account, urgent: bool) -> None:
        account.due = True

    def send(self, meters: tuple[Meter, ...]) -> None:
        fleet = self.fleet
        decision = self.ledger.take("acme", meters, fleet.now)
        if decision is None:
            parked = Parked(meters, lambda told: fleet.told(told, meters), fleet.now)
            self.ledger.park(self.ledger.account("acme"), parked)
        else:
            fleet.told(decision, meters)

    def order(self) -> None:
        order = self.ledger.order(self.ledger.account("acme"), self.fleet.now)
        if order is not None:
            answers = self.fleet.store.place(order, self.fleet.now)
            self.under_way.append((order, answers, self.fleet.now))

    def hear(self) -> None:
        for order, answers, placed in self.under_way:
            self.fleet.delay = max(self.fleet.delay, self.fleet.now - placed)
            self.ledger.apply(order, answers, self.fleet.now, late=False)
        self.under_way = []

    def owed(self) -> int:
        return sum(line.stock for line in self.ledger.account("acme").lines.values())


class Fleet:
    """Routers that share a store."""

    def __init__(self, meters: tuple[Meter, ...], size: int) -> None:
        self.now = 1000.0
        self.meters = meters
        self.delay = 0.0
        self.store = Store()
        self.oracle = {meter.name: Exact(meter.rate, meter.burst) for meter in meters}
        self.verdicts: Counter[bool] = Counter()
        self.taken = 0
        self.routers = [Router(self) for _ in range(size)]
        for router in self.routers:
            router.ledger.routers = size

    def told(self, decision: Decision, meters: tuple[Meter, ...]) -> None:
        self.verdicts[decision.allowed] += 1
        if decision.allowed:
            for meter in meters:
                self.oracle[meter.name].put(self.now)
                self.taken += 1
        else:
            assert decision.retry_after > 0

    def settle(self) -> None:
        for router in self.routers:
            while any(
                line.spent or line.stock for line in router.ledger.account("acme").lines.values()
            ) or (router.ledger.account("acme").parked or router.under_way):
                router.hear()
                router.order()
                router.hear()

    def step(self, do: str, who: int, count: int, gap: float) -> None:
        self.now += gap
        router = self.routers[who % len(self.routers)]
        if do == "send":
            for number in range(count):
                router.send(self.meters[: 1 + number % len(self.meters)])
        elif do == "order":
            router.order()
        else:
            router.hear()


meters = st.builds(
    Meter,
    name=st.just("default"),
    rate=st.sampled_from([0.5, 3.0, 50.0, 2000.0]),
    burst=st.sampled_from([1, 2, 7, 100, 1000, 5000]),
    fail_closed=st.booleans(),
    shadow=st.just(False),
)
gaps = st.sampled_from([0.0, 0.0, 1e-4, 1e-3, 0.02, 0.3, 5.0])
steps = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "order", "order", "hear", "hear"]),
        st.integers(0, 2),
        st.sampled_from([1, 2, 5, 60]),
        gaps,
    ),
    max_size=80,
)


def bound(fleet: Fleet, meter: Meter) -> float:
    """What decision 17 states: a credit a router, and what leaks while an answer is on its way."""
    credit = 0 if meter.fail_closed else max(1, int(meter.burst * 0.003))
    return credit * len(fleet.routers) + meter.rate * fleet.delay + ROOM


@given(meter=meters, size=st.sampled_from([1, 3]), steps=steps)
def test_no_more_is_admitted_than_the_bound(meter: Meter, size: int, steps: list[Any]) -> None:
    fleet = Fleet((meter,), size)
    for step in steps:
        fleet.step(*step)
    fleet.settle()
    assert fleet.oracle["default"].excess <= bound(fleet, meter)


@given(one=meters, other=meters, size=st.sampled_from([1, 3]), steps=steps)
def test_of_two_meters_each_keeps_its_bound(
    one: Meter, other: Meter, size: int, steps: list[Any]
) -> None:
    both = (one, other._replace(name="orders.place"))
    fleet = Fleet(both, size)
    for step in steps:
        fleet.step(*step)
    fleet.settle()
    for meter in both:
        assert fleet.oracle[meter.name].excess <= bound(fleet, meter)


@given(meter=meters, size=st.sampled_from([1, 3]), steps=steps)
def test_what_is_taken_was_granted_or_credited_and_not_returned(
    meter: Meter, size: int, steps: list[Any]
) -> None:
    fleet = Fleet((meter, meter._replace(name="orders")), size)
    for step in steps:
        fleet.step(*step)
        sums = [r.counters for r in fleet.routers]
        given_out = sum(c.leased + c.credit - c.returned for c in sums)
        assert fleet.taken == given_out - sum(r.owed() for r in fleet.routers)


@given(meter=meters, size=st.sampled_from([1, 3]), steps=steps)
def test_every_message_gets_one_decision(meter: Meter, size: int, steps: list[Any]) -> None:
    fleet = Fleet((meter,), size)
    sent = 0
    for step in steps:
        sent += step[2] if step[0] == "send" else 0
        fleet.step(*step)
    fleet.settle()
    assert fleet.verdicts.total() == sent


@given(meter=meters, count=st.integers(1, 300))
def test_one_router_that_is_heard_at_once_is_exact(meter: Meter, count: int) -> None:
    fleet = Fleet((meter,), 1)
    router = fleet.routers[0]
    for _ in range(count):
        router.send(fleet.meters)
        router.order()
        router.hear()
    assert fleet.verdicts[True] == min(count, meter.burst)


@given(meter=meters, gap=st.floats(1e-4, 2.0), count=st.integers(1, 200))
def test_nobody_is_refused_who_keeps_to_the_rate(meter: Meter, gap: float, count: int) -> None:
    fleet = Fleet((meter,), 1)
    for _ in range(count):
        fleet.step("send", 0, 1, max(gap, 1.001 / meter.rate))
        fleet.step("order", 0, 1, 0.0)
        fleet.step("hear", 0, 1, 0.0)
    assert fleet.verdicts[False] == 0


def test_a_flood_over_the_rate_orders_nothing() -> None:
    fleet = Fleet((Meter("default", 1.0, 10),), 1)
    fleet.step("send", 0, 50, 0.0)
    fleet.settle()
    fleet.step("send", 0, 1000, 0.1)
    assert (fleet.verdicts[False], fleet.routers[0].under_way) == (1040, [])
    assert fleet.routers[0].ledger.order(fleet.routers[0].ledger.account("acme"), fleet.now) is None


def test_a_tenant_that_has_rested_does_not_wait() -> None:
    fleet = Fleet((Meter("default", 10.0, 100),), 3)
    for _ in range(20):
        fleet.step("send", 0, 1, 0.5)
        assert not fleet.routers[0].ledger.account("acme").parked
        fleet.settle()


def test_the_most_specific_meter_that_is_exceeded_is_named() -> None:
    wide, narrow = Meter("default", 1.0, 3), Meter("orders.place", 1.0, 2)
    told: list[Decision] = []
    fleet = Fleet((wide, narrow), 1)
    fleet.told = lambda decision, meters: told.append(decision)  # type: ignore[method-assign]
    for _ in range(4):
        fleet.routers[0].send((wide, narrow))
        fleet.settle()
    assert [d.meter.name for d in told if not d.allowed] == ["orders.place"] * 2


def test_what_one_meter_refuses_is_not_taken_from_the_other() -> None:
    wide, narrow = Meter("default", 0.001, 10), Meter("orders.place", 0.001, 1)
    fleet = Fleet((wide, narrow), 1)
    for _ in range(8):
        fleet.routers[0].send((wide, narrow))
        fleet.settle()
    assert fleet.store.buckets["default"].held == pytest.approx(1.0)


def test_a_shadow_meter_reports_and_refuses_nothing() -> None:
    wide, shadow = Meter("default", 1.0, 100), Meter("orders", 1.0, 5, shadow=True)
    told: list[Decision] = []
    fleet = Fleet((wide, shadow), 1)
    fleet.told = lambda decision, meters: told.append(decision)  # type: ignore[method-assign]
    for _ in range(20):
        fleet.routers[0].send((wide, shadow))
        fleet.settle()
    assert all(d.allowed for d in told)
    assert [d.shadowed for d in told] == [()] * 5 + [("orders",)] * 15


# while the store is away


@given(meter=meters, steps=steps, away=st.lists(st.tuples(st.integers(0, 2), gaps), max_size=60))
def test_without_the_store_at_most_one_burst_more_is_admitted(
    meter: Meter, steps: list[Any], away: list[tuple[int, float]]
) -> None:
    fleet = Fleet((meter._replace(fail_closed=False),), 3)
    for step in steps:
        fleet.step(*step)
    for router in fleet.routers:
        router.hear()
        router.ledger.leave(fleet.now)
    for who, gap in away:
        fleet.step("send", who, 60, gap)
    for router in fleet.routers:
        router.ledger.come_back(fleet.now)
    for step in steps:
        fleet.step(*step)
    fleet.settle()
    least_one_each = max(0, 3 - meter.burst)
    assert fleet.oracle["default"].excess <= (
        meter.burst + least_one_each + bound(fleet, meter._replace(fail_closed=False))
    )


def test_what_is_admitted_meanwhile_is_owed_afterwards() -> None:
    fleet = Fleet((Meter("default", 0.001, 300),), 3)
    for router in fleet.routers:
        router.ledger.leave(fleet.now)
        for _ in range(200):
            router.send(fleet.meters)
    assert fleet.verdicts == {True: 300, False: 300}
    for router in fleet.routers:
        router.ledger.come_back(fleet.now)
    fleet.settle()
    fleet.step("send", 2, 10, 0.0)
    fleet.settle()
    assert fleet.verdicts[True] == 300


def test_a_share_begins_with_what_was_left() -> None:
    fleet = Fleet((Meter("default", 0.001, 300),), 3)
    for who in range(3):
        fleet.step("send", who, 50, 0.0)
        fleet.settle()
    fleet.step("send", 0, 1, 0.0)
    fleet.settle()
    for router in fleet.routers:
        router.ledger.leave(fleet.now)
        for _ in range(200):
            router.send(fleet.meters)
    assert fleet.verdicts[True] <= 300 + 150


def test_a_meter_that_fails_closed_admits_nothing_meanwhile() -> None:
    fleet = Fleet((Meter("default", 10.0, 100, fail_closed=True),), 1)
    fleet.routers[0].ledger.leave(fleet.now)
    decision = fleet.routers[0].ledger.take("acme", fleet.meters, fleet.now)
    assert decision == Decision(False, fleet.meters[0], 0, 1.0, away=True)


def test_what_is_parked_is_decided_when_the_store_goes() -> None:
    fleet = Fleet((Meter("default", 10.0, 100),), 1)
    fleet.step("send", 0, 30, 0.0)
    fleet.routers[0].ledger.leave(fleet.now)
    assert fleet.verdicts.total() == 30


def test_a_lost_charge_is_charged_again() -> None:
    fleet = Fleet((Meter("default", 0.001, 1000),), 1)
    fleet.step("send", 0, 1, 0.0)
    ledger = fleet.routers[0].ledger
    order = ledger.order(ledger.account("acme"), fleet.now)
    assert order is not None
    ledger.lose(order)
    fleet.settle()
    assert fleet.store.buckets["default"].held == pytest.approx(1.0)


# housekeeping


@given(meter=meters, steps=steps)
def test_forgetting_the_idle_keeps_the_bound(meter: Meter, steps: list[Any]) -> None:
    fleet = Fleet((meter,), 3)
    for step in steps:
        fleet.step(*step)
        for router in fleet.routers:
            if not router.under_way:
                router.ledger.account("acme").due = False
                router.ledger.forget(["acme"], fleet.now)
    fleet.settle()
    assert fleet.oracle["default"].excess <= bound(fleet, meter)


def test_who_has_rested_is_forgotten() -> None:
    fleet = Fleet((Meter("default", 10.0, 100),), 1)
    fleet.step("send", 0, 5, 0.0)
    fleet.settle()
    ledger = fleet.routers[0].ledger
    ledger.account("acme").due = False
    ledger.forget(["acme"], fleet.now + 0.1)
    assert "acme" in ledger.accounts
    ledger.forget(["acme"], fleet.now + 1.0)
    assert "acme" not in ledger.accounts


def test_the_level_is_what_the_store_had_less_what_is_owed() -> None:
    meter = Meter("default", 1.0, 1000)
    fleet = Fleet((meter,), 1)
    router = fleet.routers[0]
    assert router.ledger.level("acme", meter, fleet.now) == (1000.0, True)
    for _ in range(3):
        router.send((meter,))
    assert router.ledger.level("acme", meter, fleet.now) == (997.0, True)
    fleet.settle()
    assert router.ledger.level("acme", meter, fleet.now) == (997.0, True)


def test_without_the_store_the_level_is_of_its_own_part() -> None:
    meter = Meter("default", 1.0, 1000)
    fleet = Fleet((meter,), 2)
    router = fleet.routers[0]
    router.send((meter,))
    router.send((meter,))
    fleet.settle()
    router.ledger.leave(fleet.now)
    assert router.ledger.level("acme", meter, fleet.now) == (499.0, False)
    router.send((meter,))
    assert router.ledger.level("acme", meter, fleet.now) == (498.0, False)
