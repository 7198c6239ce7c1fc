"""Reading a stream by a consumer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from tenantry.bus import Bus, scan
from tenantry.bus import jetstream as js
from tenantry.bus.reading import read
from tenantry.errors import JetStreamError
from tests.unit.bus.station import Station
from tests.unit.bus.test_scan import stream


async def numbers(bus: Bus, name: str, subject: str = ">", **options: int) -> list[int]:
    found = read(bus, name, f"{name}.{subject}", **options)
    return [int(each.headers["number"]) async for each in found]


async def test_all_messages_come_in_order(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 5)) == [0, 1, 2, 3, 4]


async def test_more_than_one_pull(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 600)) == list(range(600))


async def test_a_little_at_once(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 30), ahead=4) == list(range(30))


async def test_more_bytes_than_one_pull_may_bring(
    bus: Bus, quick: Callable[[str, float], None]
) -> None:
    quick("reading._BYTES", 1000)
    assert await numbers(bus, await stream(bus, 100)) == list(range(100))


async def test_only_those_on_the_subject(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 5), "1") == [1, 3]


async def test_from_a_sequence_on(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 5), first=4) == [3, 4]


async def test_an_empty_stream_has_none(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 0)) == []


async def test_past_the_end_there_is_none(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 3), first=4) == []


async def test_it_reads_what_a_scan_reads(bus: Bus) -> None:
    name = await stream(bus, 5)
    read_so = [each async for each in read(bus, name, f"{name}.>")]
    scanned = [each async for each in scan.scan(bus, name, f"{name}.>")]
    # A server's time stamps have nanoseconds, which the two round differently.
    assert [each._replace(time=0.0) for each in read_so] == [
        each._replace(time=0.0) for each in scanned
    ]
    assert [each.time for each in read_so] == pytest.approx([each.time for each in scanned])


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


async def test_a_stream_that_is_not_there(bus: Bus) -> None:
    with pytest.raises(JetStreamError, match="not found"):
        await numbers(bus, "nowhere")


async def test_it_goes_on_after_the_server_was_killed(frail: Station) -> None:
    bus = await frail.connect()
    name = await stream(bus, 600)
    got = []
    async for each in read(bus, name, f"{name}.>"):
        got.append(int(each.headers["number"]))
        if len(got) == 100:
            await frail.kill()
            await asyncio.sleep(0)
            await frail.start()
    assert got == list(range(600))
