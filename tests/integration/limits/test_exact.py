"""Limits on a real Valkey against an exact log, with one router and with three."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from tenantry_workers.router.limits import Meter
from tests.integration.limits.oracle import Log, play
from tests.valkey import Valkey

SMALL = Meter("default", 200.0, 100)
LARGE = Meter("default", 2000.0, 2000)

Trace = list[tuple[float, int]]


def poisson(meter: Meter, rng: random.Random) -> Trace:
    """Three times the rate, for as long as two bursts take."""
    now, trace = 0.0, []
    while now < 2 * meter.burst / meter.rate:
        now += rng.expovariate(3 * meter.rate)
        trace.append((now, rng.randrange(3)))
    return trace


def boundary(meter: Meter, rng: random.Random) -> Trace:
    """A burst just before a fixed window would end, and one just after."""
    period = meter.burst / meter.rate
    times = [period * 0.99] * meter.burst + [period * 1.01] * meter.burst + [period * 2] * 50
    return [(at, rng.randrange(3)) for at in times]


def rested(meter: Meter, rng: random.Random) -> Trace:
    """Half the rate for a while, a rest, then two bursts at once."""
    steady = [n * 2 / meter.rate for n in range(meter.burst // 4)]
    end = steady[-1] + 0.3
    return [(at, rng.randrange(3)) for at in [*steady, *[end] * (2 * meter.burst)]]


def flood(meter: Meter, rng: random.Random) -> Trace:
    """Steadily at ten times the rate, one router after the other."""
    count = min(4000, int(10 * meter.burst))
    return [(n / meter.rate / 10, n) for n in range(count)]


@pytest.mark.parametrize("routers", [1, 3])
@pytest.mark.parametrize("meter", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("make", [poisson, boundary, rested, flood])
async def test_admission_is_within_the_bound_and_nobody_is_refused_wrongly(
    valkey: Valkey,
    limiters: Any,
    make: Callable[[Meter, random.Random], Trace],
    meter: Meter,
    routers: int,
) -> None:
    log = Log(meter)
    await play(log, await limiters(valkey.url, routers), make(meter, random.Random(4)))
    assert log.over() <= log.bound(routers)
    assert log.wrong(routers) == 0


async def test_who_keeps_to_the_rate_is_never_refused(valkey: Valkey, limiters: Any) -> None:
    log = Log(SMALL)
    trace = [(n / SMALL.rate, n) for n in range(300)]
    await play(log, await limiters(valkey.url, 3), trace)
    assert log.admitted == 300


async def test_the_whole_burst_is_there_for_one_router(valkey: Valkey, limiters: Any) -> None:
    log = Log(Meter("default", 0.01, 100))
    await play(log, (await limiters(valkey.url, 3))[:1], [(0.0, 0)] * 150)
    assert log.admitted == 100


async def test_three_routers_admit_one_burst_together(valkey: Valkey, limiters: Any) -> None:
    log = Log(Meter("default", 0.01, 100))
    await play(log, await limiters(valkey.url, 3), [(n / 1000, n) for n in range(300)])
    assert 100 <= log.admitted <= 103


async def test_tenants_do_not_share_a_budget(valkey: Valkey, limiters: Any) -> None:
    (limiter,) = await limiters(valkey.url)
    log, other = Log(Meter("default", 0.01, 10)), Log(Meter("default", 0.01, 10))
    for _ in range(20):
        log.send(limiter, "acme")
        other.send(limiter, "globex")
    await log.complete()
    await other.complete()
    assert (log.admitted, other.admitted) == (10, 10)


# the clock of the server


def shift(valkey: Valkey, seconds: float) -> None:
    """What the bucket looks like after the server's clock was set back by so much."""
    with valkey.client() as client:
        held, at, burst = client.get("tenantry:{acme}:rate:default").split()
        moved = f"{held} {int(at) + int(seconds * 1e6)} {burst}"
        client.set("tenantry:{acme}:rate:default", moved)


async def test_a_clock_that_is_set_back_fills_nothing(valkey: Valkey, limiters: Any) -> None:
    log, both = Log(Meter("default", 0.01, 100)), await limiters(valkey.url, 2)
    await play(log, both[:1], [(0.0, 0)] * 100)
    shift(valkey, 3600)
    await play(log, both[1:], [(0.0, 0)] * 50)
    assert log.admitted <= 102


async def test_a_clock_that_is_set_back_does_not_stop_the_leak(
    valkey: Valkey, limiters: Any
) -> None:
    log, both = Log(Meter("default", 100.0, 20)), await limiters(valkey.url, 2)
    await play(log, both[:1], [(0.0, 0)] * 25)
    shift(valkey, 3600)
    await play(log, both[1:], [(n / 100, 0) for n in range(60)])
    assert log.told[-1][1].allowed or log.admitted > 40


async def test_a_clock_that_is_set_forward_costs_at_most_one_burst(
    valkey: Valkey, limiters: Any
) -> None:
    log, both = Log(Meter("default", 0.01, 100)), await limiters(valkey.url, 2)
    await play(log, both[:1], [(0.0, 0)] * 100)
    shift(valkey, -1e6)
    await play(log, both[1:], [(0.0, 0)] * 300)
    assert 190 <= log.admitted <= 202


# Retry-After


@pytest.mark.parametrize("rate", [4.0, 20.0])
async def test_a_retry_after_the_time_told_succeeds(
    valkey: Valkey, limiters: Any, rate: float
) -> None:
    log, all_of_them = Log(Meter("default", rate, 5)), await limiters(valkey.url, 3)
    await play(log, all_of_them, [(n / 100, n) for n in range(90)])
    told, refusal = log.told[-1]
    wait = told + refusal.retry_after - time.monotonic()
    again = Log(log.meter)
    await play(again, all_of_them[:1], [(wait, 0)])
    assert again.told[0][1].allowed


@pytest.mark.parametrize("who", [0, 1])
async def test_a_retry_at_four_fifths_of_it_does_not(
    valkey: Valkey, limiters: Any, who: int
) -> None:
    log, both = Log(Meter("default", 2.0, 5)), await limiters(valkey.url, 2)
    await play(log, both, [(n / 100, n) for n in range(90)])
    told, refusal = log.told[-1]
    wait = told + refusal.retry_after * 0.8 - time.monotonic()
    again = Log(log.meter)
    await play(again, both[who:][:1], [(wait, 0)])
    assert not again.told[0][1].allowed
