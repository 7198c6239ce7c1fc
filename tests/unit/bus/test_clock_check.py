"""A process compares its clock with nats-server's, and takes part while it is right."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tenantry import clock
from tenantry.bus import Bus, api
from tenantry.errors import Unavailable
from tenantry.runtime import ClockCheck, clock_check
from tests.unit.bus.station import until


class Shifted:
    """The time as the check sees it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic()


class Part:
    """Counts how often it has joined and left."""

    def __init__(self, fails: int = 0) -> None:
        self.joined = self.left = 0
        self._fails = fails

    async def join(self) -> None:
        self.joined += 1
        if self.joined <= self._fails:
            raise Unavailable("as told")

    async def leave(self) -> None:
        self.left += 1


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shifted]:
    found = Shifted()
    monkeypatch.setattr(clock_check, "time", found)
    monkeypatch.setattr(clock_check, "_EVERY", 0.01)
    yield found
    clock.is_ahead(0.0)


@pytest.fixture
async def keys(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> Bus:
    """A connection to a server with a bucket to ask about."""
    monkeypatch.setattr(clock_check, "BUCKET", "clocks")
    await api(bus, "STREAM.CREATE.KV_clocks", {"name": "KV_clocks", "subjects": ["$KV.clocks.>"]})
    return bus


async def test_a_clock_that_is_off_leaves_and_comes_back(keys: Bus, shifted: Shifted) -> None:
    check, part = ClockCheck(keys), Part()
    await check.start(part.join, part.leave)
    assert (part.joined, check.about()) == (1, {})
    shifted.ahead = 120.0
    await until(lambda: part.left == 1)
    assert check.about() == {"clock": f"{check.ahead:+.1f}"}
    assert check.ahead == pytest.approx(120, abs=5)
    shifted.ahead = 0.0
    await until(lambda: part.joined == 2)
    await check.stop()


async def test_a_clock_that_is_off_at_first_does_not_join(keys: Bus, shifted: Shifted) -> None:
    shifted.ahead = -120.0
    check, part = ClockCheck(keys), Part()
    await check.start(part.join, part.leave)
    assert (part.joined, part.left, check.joined.is_set()) == (0, 0, False)
    shifted.ahead = 0.0
    await check.joined.wait()
    await check.stop()


async def test_the_time_of_the_mesh_is_the_servers(keys: Bus, shifted: Shifted) -> None:
    shifted.ahead = 20.0
    check, part = ClockCheck(keys), Part()
    await check.start(part.join, part.leave)
    assert clock.now() == pytest.approx(time.time() - 20, abs=5)
    await check.stop()


async def test_a_join_that_fails_is_tried_again(keys: Bus, shifted: Shifted) -> None:
    shifted.ahead = 120.0
    check, part = ClockCheck(keys), Part(fails=2)
    await check.start(part.join, part.leave)
    shifted.ahead = 0.0
    await check.joined.wait()
    assert part.joined == 3
    await check.stop()


async def test_where_the_server_does_not_tell_its_time_the_clock_counts_as_right(
    bus: Bus, shifted: Shifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_check, "BUCKET", "nothing")
    shifted.ahead = 120.0
    check, part = ClockCheck(bus), Part()
    await check.start(part.join, part.leave)
    assert part.joined == 1
    await check.stop()
