"""The scheduler on a virtual clock: who gets how much, and who waits how long."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.fairness.scheduler import Scheduler
from tenantry.fairness.ticket import Ticket
from tests.unit.fairness.world import Cost, Load, World, steady

KINDS = ("steady", "exponential", "seldom long")


def cost(kind: str, mean: float) -> Cost:
    def draw(source: random.Random) -> float:
        if kind == "steady":
            return mean
        if kind == "exponential":
            return source.expovariate(1 / mean)
        return mean * (5.5 if source.random() < 0.1 else 0.5)

    return draw


busy = st.builds(
    Load,
    cost=st.builds(cost, st.sampled_from(KINDS), st.sampled_from([0.02, 0.1, 0.4])),
    outstanding=st.integers(70, 120),
    weight=st.sampled_from([1, 1, 2, 3, 5]),
)
any_load = st.builds(
    Load,
    cost=st.builds(cost, st.sampled_from(KINDS), st.sampled_from([0.02, 0.1, 1.0])),
    outstanding=st.integers(1, 30),
    weight=st.integers(1, 10),
    pause=st.sampled_from([0.0, 0.01, 0.3, 2.0]),
    stored=st.booleans(),
)


def crowd(loads: list[Load]) -> dict[str, Load]:
    return {f"t{number}": load for number, load in enumerate(loads)}


@settings(max_examples=8)
@given(st.lists(busy, min_size=2, max_size=6), st.sampled_from([4, 8, 16]), st.integers(0, 9))
def test_long_run_shares_follow_the_weights_whatever_calls_cost(
    loads: list[Load], slots: int, seed: int
) -> None:
    world = World(Scheduler(slots), crowd(loads), seed).run(100.0)
    assert world.shares() == pytest.approx(dict.fromkeys(world.loads, 1.0), abs=0.08)


@settings(max_examples=25)
@given(st.lists(any_load, min_size=1, max_size=8), st.sampled_from([1, 3, 7]))
def test_no_slot_is_free_while_a_request_waits(loads: list[Load], slots: int) -> None:
    requests = [Load(x.cost, x.outstanding, x.weight, pause=x.pause) for x in loads]
    assert World(Scheduler(slots), crowd(requests)).run(5.0).idle == 0


@settings(max_examples=25)
@given(st.lists(any_load, min_size=2, max_size=8), st.sampled_from([1, 4, 16]))
def test_everybody_is_served(loads: list[Load], slots: int) -> None:
    world = World(Scheduler(slots), crowd(loads)).run(40.0)
    assert all(world.waits.values())


@settings(max_examples=25)
@given(st.lists(any_load, min_size=1, max_size=8), st.sampled_from([1, 4, 16]))
def test_when_all_is_over_nothing_is_left(loads: list[Load], slots: int) -> None:
    scheduler, running, now = Scheduler(slots), list[Ticket](), 0.0
    for name, load in crowd(loads).items():
        for _ in range(load.outstanding):
            ticket = Ticket(name, "a", weight=load.weight, stored=load.stored)
            if scheduler.enter(ticket, now):
                running.append(ticket)
            while (more := scheduler.next(now)) is not None:
                running.append(more)
    assert len(running) <= slots
    served = 0
    while running:
        now += 0.01
        scheduler.leave(running.pop(), now)
        served += 1
        while (more := scheduler.next(now)) is not None:
            running.append(more)
    scheduler.enter(last := Ticket("last", "a"), now)  # slots are free: nobody owes anything
    scheduler.leave(last, now)
    assert (served, scheduler.running, scheduler.tenants()) == (
        sum(load.outstanding for load in loads),
        0,
        {},
    )
    assert len(scheduler) == 0


@pytest.mark.parametrize("flood", [10, 100, 1000])
def test_a_quiet_tenant_does_not_wait_longer_for_a_larger_flood(flood: int) -> None:
    loads = {
        "flood": Load(steady(1.0), flood),
        "quiet": Load(steady(0.01), 1, pause=0.37),
    }
    world = World(Scheduler(4), loads).run(100.0)
    assert max(world.waits["quiet"]) <= 1.0  # the longest that one slot can be taken


@pytest.mark.parametrize("floods", [1, 5, 50])
def test_nor_for_more_of_them(floods: int) -> None:
    loads = {f"flood{n}": Load(steady(1.0), 100) for n in range(floods)}
    loads["quiet"] = Load(steady(0.01), 1, pause=0.37)
    world = World(Scheduler(4), loads).run(200.0)
    known = len(world.waits["quiet"]) // 4  # from when it is known what their calls take
    assert max(world.waits["quiet"][known:]) <= 1.0 + 1e-9


def test_with_headroom_a_quiet_tenant_does_not_wait_for_a_lone_flood_at_all() -> None:
    loads = {"flood": Load(steady(1.0), 500), "quiet": Load(steady(0.01), 1, pause=0.37)}
    world = World(Scheduler(16, headroom=2), loads).run(100.0)
    assert max(world.waits["quiet"][5:]) == 0.0  # the first wave takes what is free
    assert world.most["flood"] == 16
    assert sum(world.work.values()) > 13.9 * 100


def test_a_tenant_alone_has_all_slots() -> None:
    world = World(Scheduler(16, headroom=2), {"alone": Load(steady(0.1), 100)}).run(50.0)
    assert world.idle == 0


def test_slow_calls_get_no_more_of_the_worker_than_fast_ones() -> None:
    loads = {"slow": Load(steady(1.0), 64), "fast": Load(steady(0.01), 64)}
    world = World(Scheduler(8), loads).run(300.0)
    assert world.shares() == pytest.approx({"slow": 1.0, "fast": 1.0}, abs=0.02)


def test_what_runs_already_counts() -> None:
    scheduler = Scheduler(8)
    running = [Ticket("early", "a") for _ in range(8)]
    assert all(scheduler.enter(ticket, 0.0) for ticket in running)
    for _ in range(8):
        scheduler.enter(Ticket("early", "a"), 1.0)
        scheduler.enter(Ticket("late", "a"), 1.0)
    began = []
    for number, ticket in enumerate(running):
        scheduler.leave(ticket, 2.0 + number / 100)
        began.append(scheduler.next(2.0 + number / 100))
    names = [ticket.tenant for ticket in began if ticket is not None]
    assert names[:4] == ["late"] * 4
    assert len(names) == 8


def test_what_was_used_while_nobody_waited_is_not_owed() -> None:
    scheduler, now = Scheduler(1), 0.0
    for _ in range(100):
        scheduler.enter(ticket := Ticket("early", "a"), now)
        now += 1.0
        scheduler.leave(ticket, now)
    scheduler.enter(first := Ticket("early", "a"), now)
    for name in ("early", "late", "early", "late"):
        scheduler.enter(Ticket(name, "a"), now)
    served = []
    for _ in range(4):
        now += 1.0
        scheduler.leave(first, now)
        first = scheduler.next(now) or first
        served.append(first.tenant)
    assert sorted(served[:2]) == ["early", "late"] or served[:2] == ["late", "late"]
    assert sorted(served) == ["early", "early", "late", "late"]


@settings(max_examples=20)
@given(st.integers(1, 5), st.lists(any_load, min_size=1, max_size=4))
def test_a_tenant_never_holds_more_than_its_own_bound(most: int, others: list[Load]) -> None:
    loads = crowd(others) | {"bound": Load(steady(0.05), 50, concurrency=most)}
    world = World(Scheduler(16), loads).run(20.0)
    assert 1 <= world.most["bound"] <= most


def test_a_bound_leaves_its_slots_to_others() -> None:
    loads = {"bound": Load(steady(1.0), 50, concurrency=2), "free": Load(steady(1.0), 50)}
    world = World(Scheduler(8), loads).run(50.0)
    assert world.work["free"] == pytest.approx(6 * 50, rel=0.03)


def test_the_journal_leaves_slots_to_requests() -> None:
    scheduler = Scheduler(16)
    for _ in range(100):
        scheduler.enter(Ticket("backlog", "a", stored=True), 0.0)
    while scheduler.next(0.0) is not None:
        pass
    assert scheduler.running == 14
    assert scheduler.enter(Ticket("backlog", "a"), 0.0) or scheduler.next(0.0) is not None


def test_requests_leave_slots_to_the_journal() -> None:
    loads = {
        "asks": Load(steady(0.1), 100),
        "sends": Load(steady(0.1), 100, stored=True),
    }
    world = World(Scheduler(8), loads).run(100.0)
    assert world.shares() == pytest.approx({"asks": 1.0, "sends": 1.0}, abs=0.02)


def test_a_tenants_own_requests_and_its_backlog_take_turns() -> None:
    scheduler = Scheduler(4)
    running = [Ticket("one", "a") for _ in range(4)]
    for ticket in running:
        scheduler.enter(ticket, 0.0)
    for _ in range(4):
        scheduler.enter(Ticket("one", "a", stored=True), 0.0)
        scheduler.enter(Ticket("one", "a"), 0.0)
    kinds = []
    for ticket in running:
        scheduler.leave(ticket, 1.0)
        following = scheduler.next(1.0)
        kinds.append(following is not None and following.stored)
    assert kinds.count(True) == 2


def test_a_lower_limit_holds_from_the_next_on() -> None:
    loads = {"one": Load(steady(0.1), 50), "two": Load(steady(0.1), 50)}
    scheduler = Scheduler(8)
    World(scheduler, loads).run(1.0)
    scheduler.limit = 2
    for name, held in scheduler.tenants().items():
        assert held.running, name
    assert scheduler.next(1.0) is None


def test_what_is_withdrawn_is_not_served() -> None:
    scheduler = Scheduler(1)
    scheduler.enter(first := Ticket("a", "x"), 0.0)
    waiting = [Ticket("b", "x") for _ in range(3)]
    for ticket in waiting:
        scheduler.enter(ticket, 0.0)
    scheduler.withdraw(waiting[1])
    scheduler.leave(first, 1.0)
    served = []
    while (ticket := scheduler.next(1.0)) is not None:
        served.append(ticket)
        scheduler.leave(ticket, 1.0)
    assert served == [waiting[0], waiting[2]]


def test_the_lowest_weight_is_shed_first() -> None:
    scheduler = Scheduler(1)
    scheduler.enter(Ticket("runs", "x"), 0.0)
    for name, weight in (("high", 9), ("low", 1), ("middle", 3)):
        scheduler.enter(Ticket(name, "x", weight=weight), 0.0)
    shed = [scheduler.shed(since=1.0) for _ in range(4)]
    assert [ticket and ticket.tenant for ticket in shed] == ["low", "middle", "high", None]


def test_of_one_weight_the_longest_queue_is_shed_first() -> None:
    scheduler = Scheduler(1)
    for name in ("runs", "short", "long", "long", "long"):
        scheduler.enter(Ticket(name, "x"), 0.0)
    shed = scheduler.shed(since=1.0)
    assert shed is not None
    assert shed.tenant == "long"


def test_neither_a_higher_weight_nor_what_came_late_is_shed() -> None:
    scheduler = Scheduler(1)
    for name in ("runs", "waits"):
        scheduler.enter(Ticket(name, "x", weight=5), 2.0)
    assert scheduler.shed(since=9.0, below=5) is None
    assert scheduler.shed(since=1.0) is None
    assert scheduler.shed(since=9.0, below=6) is not None


def test_how_long_a_queue_takes_is_told_from_the_pace_measured() -> None:
    scheduler = Scheduler(1)
    scheduler.enter(running := Ticket("a", "x"), 0.0)
    for _ in range(20):
        scheduler.enter(Ticket("a", "x"), 0.0)
    for now in range(1, 11):
        scheduler.leave(running, float(now))
        running = scheduler.next(float(now)) or running
    assert scheduler.drained("a", 10.0) == pytest.approx(10.0)


def test_idle_tenants_are_forgotten() -> None:
    scheduler = Scheduler(4)
    for number in range(10_000):
        scheduler.enter(ticket := Ticket(f"t{number}", "x"), number / 10)
        scheduler.leave(ticket, number / 10 + 0.05)
    assert len(scheduler) == 0


def test_in_a_lasting_rush_who_is_gone_is_forgotten() -> None:
    scheduler, now, number = Scheduler(2), 0.0, 0
    running: list[Ticket] = []
    for number in range(10_000):
        ticket = Ticket(f"t{number}", "x")
        if scheduler.enter(ticket, now):
            running.append(ticket)
        if number > 50:  # fifty wait at any time
            now += 0.01
            scheduler.leave(running.pop(0), now)
            running.append(scheduler.next(now) or ticket)
    assert len(scheduler) < 4200
