"""Reading a stream to its end, by a consumer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from tenantry.bus import Bus, Message
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.bus.reading import _Waiting, read
from tenantry.errors import JetStreamError, NotAllowed, Unavailable
from tests.unit.bus.station import Station, stream

Quick = Callable[[str, float], None]


async def numbers(bus: Bus, name: str, **options: Any) -> list[int]:
    found = read(bus, name, f"{name}.>", **options)
    return [int(each.headers["number"]) async for each in found]


async def consumers(bus: Bus, name: str) -> list[str]:
    return (await js.api(bus, f"CONSUMER.NAMES.{name}"))["consumers"] or []


async def no_consumers(bus: Bus, name: str) -> None:
    """Return when the stream has no consumer."""
    async with asyncio.timeout(10):
        while await consumers(bus, name):
            await asyncio.sleep(0.01)


def waiting(bodies: list[bytes]) -> _Waiting:
    """What waits for a caller that reads 16 messages ahead."""
    found = _Waiting(ahead=16)
    for body in bodies:
        found.receive(Message("x", "", body), Delivery(1, 1, 0.0, 1))
    return found


async def test_a_few_messages_at_a_time(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 30), ahead=4) == list(range(30))


async def test_one_message_at_a_time(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 5), ahead=1) == list(range(5))


async def test_more_bytes_than_may_wait(bus: Bus, quick: Quick) -> None:
    quick("reading._BYTES", 10)
    assert await numbers(bus, await stream(bus, 100)) == list(range(100))


def test_so_many_messages_may_wait() -> None:
    assert waiting(bodies=[b"x"] * 5).room() == 2 * 16 - 5


def test_no_message_may_come_while_so_many_bytes_wait(quick: Quick) -> None:
    quick("reading._BYTES", 40)
    assert waiting(bodies=[bytes(20)]).room() == 31
    assert waiting(bodies=[bytes(20), bytes(20)]).room() == 0


async def test_from_a_time_on(bus: Bus) -> None:
    name = await stream(bus, 20)
    times = [each.time async for each in read(bus, name, f"{name}.>")]
    since = (times[9] + times[10]) / 2
    assert await numbers(bus, name, start_time=since) == list(range(10, 20))


async def test_after_the_last_time_there_is_none(bus: Bus) -> None:
    name = await stream(bus, 3)
    last = [each.time async for each in read(bus, name, f"{name}.>")][-1]
    assert await numbers(bus, name, start_time=last + 60) == []


async def test_headers_only(bus: Bus) -> None:
    name = await stream(bus, 3)
    found = [each async for each in read(bus, name, f"{name}.>", headers_only=True)]
    assert [(each.data, each.headers["Nats-Msg-Size"]) for each in found] == [(b"", "1")] * 3


async def test_messages_that_are_erased_meanwhile_are_not_waited_for(
    bus: Bus, quick: Quick
) -> None:
    quick("reading._QUIET", 0.1)
    name = await stream(bus, 20)
    got = []
    async for each in read(bus, name, f"{name}.>", ahead=4):
        got.append(each.seq)
        if len(got) == 1:
            await js.api(bus, f"STREAM.PURGE.{name}")
    assert got == list(range(1, len(got) + 1))
    assert len(got) < 20


async def test_what_is_stored_meanwhile_does_not_prolong_it(bus: Bus) -> None:
    """A message behind which there is nothing ends it, though others have come by then."""
    name = await stream(bus, 3)
    got = []
    async for each in read(bus, name, f"{name}.>"):
        got.append(each.seq)
        await js.store(bus, f"{name}.0", b"x")
        if len(got) == 10:
            break
    assert got == [1, 2, 3]


async def test_a_caller_that_stops_half_way_leaves_no_consumer(bus: Bus) -> None:
    name = await stream(bus, 600)
    async with aclosing(read(bus, name, f"{name}.>")) as found:
        async for each in found:
            if each.seq == 3:
                assert len(await consumers(bus, name)) == 1
                break
    await no_consumers(bus, name)


async def test_a_reading_to_the_end_leaves_no_consumer(bus: Bus) -> None:
    name = await stream(bus, 3)
    await numbers(bus, name)
    await no_consumers(bus, name)


async def test_it_goes_on_when_its_consumer_is_gone(bus: Bus) -> None:
    name = await stream(bus, 100)
    got = []
    async for each in read(bus, name, f"{name}.>", ahead=4):
        got.append(int(each.headers["number"]))
        if len(got) == 10:
            (consumer,) = await consumers(bus, name)
            await js.api(bus, f"CONSUMER.DELETE.{name}.{consumer}")
    assert got == list(range(100))


async def test_it_goes_on_over_other_credentials(bus: Bus) -> None:
    name = await stream(bus, 100)
    got = []
    async for each in read(bus, name, f"{name}.>", ahead=4):
        got.append(int(each.headers["number"]))
        if len(got) % 20 == 0:
            await bus.renew()
    assert got == list(range(100))


async def test_erased_messages_are_not_waited_for_over_other_credentials(
    bus: Bus, quick: Quick
) -> None:
    quick("reading._QUIET", 0.1)
    name = await stream(bus, 20)
    got = []
    async for each in read(bus, name, f"{name}.>", ahead=4):
        got.append(each.seq)
        if len(got) == 1:
            await js.api(bus, f"STREAM.PURGE.{name}")
            await bus.renew()
    assert got == list(range(1, len(got) + 1))


async def test_a_stream_that_does_not_exist(bus: Bus) -> None:
    with pytest.raises(JetStreamError, match="not found"):
        await numbers(bus, "nowhere")


async def test_a_stream_that_the_credentials_do_not_allow(station: Station, bus: Bus) -> None:
    name = await stream(bus, 1)
    with pytest.raises(NotAllowed):
        await numbers(await station.connect("service", "orders"), name)


async def test_a_server_that_stays_away(frail: Station, quick: Quick) -> None:
    quick("reading._PATIENCE", 0.5)
    bus = await frail.connect(patience=0.1)
    name = await stream(bus, 600)
    await frail.kill()
    with pytest.raises(Unavailable, match=f"the stream {name} can't be read"):
        await numbers(bus, name)
