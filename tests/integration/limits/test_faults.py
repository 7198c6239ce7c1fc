"""Limits whose store is killed, paused, emptied, slow, or was never there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tenantry_workers.router.limits import Meter
from tenantry_workers.router.limits.shared import SharedLimiter
from tests.integration.limits.oracle import Log, play
from tests.mesh import eventually
from tests.valkey import Slow, Valkey

METER = Meter("default", 0.01, 300)
CLOSED = Meter("default", 0.01, 300, fail_closed=True)


@pytest.fixture(params=["killed", "paused"])
def gone(request: pytest.FixtureRequest, valkey: Valkey) -> Iterator[Any]:
    """Two functions: what takes the server away, and what brings it back."""
    if request.param == "killed":
        yield valkey.kill, valkey.start
    else:
        yield valkey.pause, valkey.resume


async def away(*limiters: SharedLimiter, tenant: str = "other") -> None:
    """Return when each has noticed; they notice by messages."""
    log = Log(Meter("default", 1e4, 1))

    async def noticed() -> bool:
        for limiter in limiters:
            log.send(limiter, tenant)
        return all(limiter.away for limiter in limiters)

    await eventually(noticed)


async def back(*limiters: SharedLimiter) -> None:
    async def returned() -> bool:
        return not any(limiter.away for limiter in limiters)

    await eventually(returned)


async def test_admission_goes_on_from_the_shares(valkey: Valkey, limiters: Any, gone: Any) -> None:
    three = await limiters(valkey.url, 3, 0.05)
    gone[0]()
    await away(*three)
    log = Log(METER)
    await play(log, three, [(0.0, n) for n in range(600)])
    assert log.admitted == 300


async def test_no_message_waits_for_a_store_that_is_away(
    valkey: Valkey, limiters: Any, gone: Any
) -> None:
    (one,) = await limiters(valkey.url, 1, 0.05)
    gone[0]()
    await away(one)
    assert one.take("acme", (METER,), 0.0) is not None


async def test_what_is_parked_when_it_goes_is_decided(
    valkey: Valkey, limiters: Any, gone: Any
) -> None:
    (one,) = await limiters(valkey.url, 1, 0.05)
    gone[0]()
    log = Log(METER)
    await play(log, [one], [(0.0, 0)] * 50)
    assert (log.admitted, one.away) == (50, True)


async def test_it_comes_back_and_what_was_admitted_meanwhile_is_settled(
    valkey: Valkey, limiters: Any, gone: Any
) -> None:
    three = await limiters(valkey.url, 3, 0.05)
    gone[0]()
    await away(*three)
    log = Log(METER)
    await play(log, three, [(0.0, n) for n in range(240)])
    gone[1]()
    await back(*three)
    key = "tenantry:{acme}:rate:default"

    async def settled() -> bool:
        with valkey.client() as client:
            found = client.get(key)
        return found is not None and float(found.split()[0]) > 239

    await eventually(settled)
    await play(log, three, [(n / 1000, n) for n in range(200)])
    assert 300 <= log.admitted <= 303


async def test_no_second_burst_when_it_comes_back(valkey: Valkey, limiters: Any, gone: Any) -> None:
    three = await limiters(valkey.url, 3, 0.05)
    log = Log(METER)
    await play(log, three, [(n / 1000, n) for n in range(400)])
    gone[0]()
    await away(*three)
    await play(log, three, [(0.0, n) for n in range(400)])
    gone[1]()
    await back(*three)
    await play(log, three, [(n / 1000, n) for n in range(400)])
    # Killed, it has forgotten everything: that is the one burst.
    assert log.admitted <= 2 * 300 + 3 + 3


async def test_a_limit_that_fails_closed_refuses_until_it_is_back(
    valkey: Valkey, limiters: Any, gone: Any
) -> None:
    (one,) = await limiters(valkey.url, 1, 0.05)
    gone[0]()
    await away(one)
    log = Log(CLOSED)
    await play(log, [one], [(0.0, 0)] * 10)
    assert {(d.allowed, d.away, d.retry_after) for _, d in log.told} == {(False, True, 1.0)}
    gone[1]()
    await back(one)
    again = Log(CLOSED)
    await play(again, [one], [(0.0, 0)] * 10)
    assert again.admitted == 10


async def test_an_emptied_store_costs_at_most_one_burst(valkey: Valkey, limiters: Any) -> None:
    three = await limiters(valkey.url, 3)
    log = Log(Meter("default", 50.0, 300))
    await play(log, three, [(n / 5000, n) for n in range(1000)])
    valkey.flush()
    await play(log, three, [(n / 5000, n) for n in range(3000)])
    assert log.over() <= 300 + log.bound(3)


async def test_scripts_that_were_forgotten_are_sent_again(valkey: Valkey, limiters: Any) -> None:
    (one,) = await limiters(valkey.url)
    log = Log(METER)
    await play(log, [one], [(0.0, 0)] * 50)
    with valkey.client() as client:
        client.script_flush()
    await play(log, [one], [(0.05, 0)] * 350)
    assert (log.admitted, one.counters.failures) == (300, 0)


async def test_a_slow_store_is_done_without_until_it_is_quick_again(
    valkey: Valkey, limiters: Any
) -> None:
    async with Slow(valkey.port, 0.0).open() as way:
        (one,) = await limiters(way.url, 1, 0.1)
        log = Log(METER)
        await play(log, [one], [(0.0, 0)] * 50)
        way.delay = 0.3
        await away(one)
        await asyncio.sleep(0)
        await play(log, [one], [(0.0, 0)] * 50)
        assert one.away
        way.delay = 0.0
        await back(one)
        await play(log, [one], [(0.0, 0)] * 300)
        assert 300 <= log.admitted <= 301


async def test_it_begins_without_a_store_and_finds_it_later(valkey: Valkey, limiters: Any) -> None:
    valkey.stop()
    (one,) = await limiters(valkey.url, 1, 0.05)
    log = Log(METER)
    await play(log, [one], [(0.0, 0)] * 10)
    assert (one.away, log.admitted) == (True, 10)
    valkey.start()
    await back(one)


async def test_one_router_that_can_not_reach_it_admits_no_more_than_its_share(
    valkey: Valkey, limiters: Any
) -> None:
    async with Slow(valkey.port, 0.0).open() as way:
        reaching = await limiters(valkey.url, 3)
        cut_off, *_ = await limiters(way.url, 3, 0.05)
        way.delay = 0.5
        await away(cut_off)
        log = Log(METER)
        await play(log, [*reaching[:2], cut_off], [(n / 1000, n) for n in range(1200)])
        assert log.admitted <= 300 + 100 + 2
