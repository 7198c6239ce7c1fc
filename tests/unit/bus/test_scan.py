"""Reading a stream from one end to the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from tenantry.bus import Bus, scan
from tenantry.bus import jetstream as js
from tenantry.errors import Unavailable
from tests.unit.bus.station import Station, fresh


async def stream(bus: Bus, count: int, **options: object) -> str:
    """A stream with so many messages on `<name>.0` and `<name>.1` in turn."""
    name = fresh("scanned")
    await js.ensure_stream(
        bus, {"name": name, "subjects": [f"{name}.>"], "allow_direct": True, **options}
    )
    for each in range(count):
        await js.store(bus, f"{name}.{each % 2}", b"x", headers={"number": str(each)})
    return name


async def numbers(bus: Bus, name: str, subject: str = ">", first: int = 1) -> list[int]:
    found = scan.scan(bus, name, f"{name}.{subject}", first=first)
    return [int(each.headers["number"]) async for each in found]


async def test_all_messages_come_in_order(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 5)) == [0, 1, 2, 3, 4]


async def test_more_than_one_batch(bus: Bus, quick: Callable[[str, float], None]) -> None:
    quick("scan.BATCH", 256)
    assert await numbers(bus, await stream(bus, 600)) == list(range(600))


async def test_only_those_on_the_subject(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 5), "1") == [1, 3]


async def test_from_a_sequence_on(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 5), first=4) == [3, 4]


async def test_an_empty_stream_has_none(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 0)) == []


async def test_past_the_end_there_is_none(bus: Bus) -> None:
    assert await numbers(bus, await stream(bus, 3), first=4) == []


async def test_what_was_deleted_is_passed_over(bus: Bus) -> None:
    name = await stream(bus, 5)
    await js.api(bus, f"STREAM.MSG.DELETE.{name}", {"seq": 2})
    assert await numbers(bus, name) == [0, 2, 3, 4]


async def test_a_reader_may_stop_half_way(bus: Bus, quick: Callable[[str, float], None]) -> None:
    quick("scan.BATCH", 256)
    name = await stream(bus, 600)
    async with aclosing(scan.scan(bus, name, f"{name}.>")) as found:
        async for each in found:
            if each.seq == 3:
                break
    assert len(await numbers(bus, name)) == 600


async def test_one_message_by_its_sequence(bus: Bus) -> None:
    found = await scan.find(bus, name := await stream(bus, 3), 2)
    assert found is not None
    assert (found.subject, found.headers["number"]) == (f"{name}.1", "1")


async def test_no_message_has_this_sequence(bus: Bus) -> None:
    name = await stream(bus, 3)
    await js.api(bus, f"STREAM.MSG.DELETE.{name}", {"seq": 2})
    assert await scan.find(bus, name, 2) is None
    assert await scan.find(bus, name, 4) is None


async def test_the_last_message_of_a_subject(bus: Bus) -> None:
    name = await stream(bus, 5)
    assert await scan.find_last(bus, name, f"{name}.1") == 4
    assert await scan.find_last(bus, name, f"{name}.2") == 0


async def test_the_next_message_of_a_subject(bus: Bus) -> None:
    name = await stream(bus, 5)
    found = await scan.find_next(bus, name, f"{name}.1", first=3)
    assert found is not None
    assert found.seq == 4
    assert await scan.find_next(bus, name, f"{name}.1", first=5) is None


async def test_a_stream_that_is_not_there(bus: Bus) -> None:
    with pytest.raises(Unavailable, match="nowhere"):
        await anext(scan.scan(bus, "nowhere", "nowhere.>", patience=0.1))


async def test_it_goes_on_after_the_server_was_killed(
    frail: Station, quick: Callable[[str, float], None]
) -> None:
    quick("scan.BATCH", 256)
    bus = await frail.connect()
    name = await stream(bus, 600)
    got = []
    async for each in scan.scan(bus, name, f"{name}.>"):
        got.append(int(each.headers["number"]))
        if len(got) == 100:
            await frail.kill()
            await asyncio.sleep(0)
            await frail.start()
    assert got == list(range(600))
