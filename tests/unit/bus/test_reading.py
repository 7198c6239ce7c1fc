"""Reading a stream by a consumer of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import pytest

from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.bus.reading import read
from tenantry.errors import JetStreamError
from tests.unit.bus.station import stream


async def numbers(bus: Bus, name: str, **options: int) -> list[int]:
    found = read(bus, name, f"{name}.>", **options)
    return [int(each.headers["number"]) async for each in found]


async def test_a_little_at_once(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 30), ahead=4) == list(range(30))


async def test_more_bytes_than_one_pull_may_bring(
    bus: Bus, quick: Callable[[str, float], None]
) -> None:
    quick("reading._BYTES", 1000)
    assert await numbers(bus, await stream(bus, 100)) == list(range(100))


async def test_what_is_erased_meanwhile_is_not_waited_for(bus: Bus) -> None:
    name = await stream(bus, 20)
    got = []
    async for each in read(bus, name, f"{name}.>", ahead=4):
        got.append(each.seq)
        if len(got) == 1:
            await js.api(bus, f"STREAM.PURGE.{name}")
    assert got == list(range(1, len(got) + 1))
    assert len(got) < 20


async def test_a_reader_that_stops_half_way_leaves_no_consumer(bus: Bus) -> None:
    name = await stream(bus, 600)
    async with aclosing(read(bus, name, f"{name}.>")) as found:
        async for each in found:
            if each.seq == 3:
                break
    assert (await js.api(bus, f"CONSUMER.NAMES.{name}"))["total"] == 0


async def test_it_goes_on_when_its_consumer_is_gone(
    bus: Bus, quick: Callable[[str, float], None]
) -> None:
    quick("reading._PAUSE", 0.01)
    name = await stream(bus, 100)
    got = []
    async for each in read(bus, name, f"{name}.>", ahead=4):
        got.append(int(each.headers["number"]))
        if len(got) == 10:
            (consumer,) = (await js.api(bus, f"CONSUMER.NAMES.{name}"))["consumers"]
            await js.api(bus, f"CONSUMER.DELETE.{name}.{consumer}")
    assert got == list(range(100))


async def test_it_goes_on_over_other_credentials(
    bus: Bus, quick: Callable[[str, float], None]
) -> None:
    quick("reading._PAUSE", 0.01)
    quick("reading._BYTES", 1000)
    name = await stream(bus, 100)
    got = []
    async for each in read(bus, name, f"{name}.>"):
        got.append(int(each.headers["number"]))
        if len(got) % 20 == 0:
            await bus.renew()
    assert got == list(range(100))


async def test_what_was_asked_for_before_other_credentials_may_end_after_them(
    bus: Bus, quick: Callable[[str, float], None]
) -> None:
    quick("reading._EXPIRES", 0.3)
    name = await stream(bus, 20)
    got = []
    async for each in read(bus, name, f"{name}.>", ahead=4):
        got.append(each.seq)
        if len(got) == 1:
            await js.api(bus, f"STREAM.PURGE.{name}")
            await bus.renew()
    assert got == list(range(1, len(got) + 1))


async def test_a_stream_that_is_not_there(bus: Bus) -> None:
    with pytest.raises(JetStreamError, match="not found"):
        await numbers(bus, "nowhere")
