"""What holds of both ways to read a stream: by asking for batches, and by a consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import StoredMessage
from tenantry.bus.reading import read
from tenantry.bus.scan import scan
from tests.unit.bus.station import Station, stream

MANY = 600
"""More than come by one request or one pull."""

Reader = Callable[..., AsyncGenerator[StoredMessage, None]]


@pytest.fixture(params=[scan, read], ids=["scan", "read"])
def reader(request: pytest.FixtureRequest, quick: Callable[[str, float], None]) -> Reader:
    quick("scan.BATCH", 256)
    found: Reader = request.param
    return found


async def numbers(
    reader: Reader, bus: Bus, name: str, subject: str = ">", first: int = 1
) -> list[int]:
    found = reader(bus, name, f"{name}.{subject}", first=first)
    return [int(each.headers["number"]) async for each in found]


async def test_all_messages_come_in_order(reader: Reader, bus: Bus) -> None:
    assert await numbers(reader, bus, await stream(bus, 5)) == [0, 1, 2, 3, 4]


async def test_more_than_come_at_once(reader: Reader, bus: Bus) -> None:
    assert await numbers(reader, bus, await stream(bus, MANY)) == list(range(MANY))


async def test_only_those_on_the_subject(reader: Reader, bus: Bus) -> None:
    assert await numbers(reader, bus, await stream(bus, 5), "1") == [1, 3]


async def test_from_a_sequence_on(reader: Reader, bus: Bus) -> None:
    assert await numbers(reader, bus, await stream(bus, 5), first=4) == [3, 4]


async def test_an_empty_stream_has_none(reader: Reader, bus: Bus) -> None:
    assert await numbers(reader, bus, await stream(bus, 0)) == []


async def test_past_the_end_there_is_none(reader: Reader, bus: Bus) -> None:
    assert await numbers(reader, bus, await stream(bus, 3), first=4) == []


async def test_what_was_deleted_is_passed_over(reader: Reader, bus: Bus) -> None:
    name = await stream(bus, 5)
    await js.api(bus, f"STREAM.MSG.DELETE.{name}", {"seq": 2})
    assert await numbers(reader, bus, name) == [0, 2, 3, 4]


async def test_it_goes_on_after_the_server_was_killed(reader: Reader, frail: Station) -> None:
    bus = await frail.connect()
    name = await stream(bus, MANY)
    got = []
    async for each in reader(bus, name, f"{name}.>"):
        got.append(int(each.headers["number"]))
        if len(got) == 100:
            await frail.kill()
            await asyncio.sleep(0)
            await frail.start()
    assert got == list(range(MANY))


async def test_both_read_the_same(bus: Bus) -> None:
    name = await stream(bus, 5)
    read_so = [each async for each in read(bus, name, f"{name}.>")]
    scanned = [each async for each in scan(bus, name, f"{name}.>")]
    # A server's time stamps have nanoseconds, which the two round differently.
    assert [each._replace(time=0.0) for each in read_so] == [
        each._replace(time=0.0) for each in scanned
    ]
    assert [each.time for each in read_so] == pytest.approx([each.time for each in scanned])
