"""Reading a stream from one end to the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import pytest

from tenantry.bus import Bus, scan
from tenantry.bus import jetstream as js
from tenantry.errors import Unavailable
from tests.unit.bus.station import stream


async def test_a_reader_may_stop_half_way(bus: Bus, quick: Callable[[str, float], None]) -> None:
    quick("scan.BATCH", 256)
    name = await stream(bus, 600)
    async with aclosing(scan.scan(bus, name, f"{name}.>")) as found:
        async for each in found:
            if each.seq == 3:
                break
    again = [each.seq async for each in scan.scan(bus, name, f"{name}.>")]
    assert again == list(range(1, 601))


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
