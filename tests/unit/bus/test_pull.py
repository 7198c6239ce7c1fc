"""Pulling from a consumer: never more than there is room for; of several readers, one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tenantry.bus import Bus, Message, Pull
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tests.unit.bus.station import Station, fresh, until

GROUP = "lane"
EXPIRES = 0.4
PIN_TIMEOUT = 1.0


class Reader:
    """Holds what it gets until it is let go."""

    def __init__(self, bus: Bus, name: str, *, slots: int, group: str = "") -> None:
        self.bus = bus
        self.slots = slots
        self.got: list[Message] = []
        self.held: list[Message] = []
        self.most = 0
        self.lost = asyncio.Event()
        self.pull = Pull(
            bus,
            name,
            "c",
            receive=self._receive,
            room=lambda: self.slots - len(self.held),
            lost=self.lost.set,
            group=group,
        )

    def _receive(self, message: Message) -> None:
        self.got.append(message)
        self.held.append(message)
        self.most = max(self.most, len(self.held))

    async def settle(self, count: int = 1) -> None:
        """Let go of the first ones."""
        for message in self.held[:count]:
            await self.bus.publish(message.reply, b"+ACK")
        del self.held[:count]
        self.pull.wake()

    async def settle_all(self) -> None:
        """Let go of all there is and of all that comes, as a quick worker does."""
        while True:
            await self.settle(len(self.held))
            await asyncio.sleep(0.01)

    async def reach(self, count: int) -> None:
        """Return when so many have come."""
        await until(lambda: len(self.got) >= count)

    @property
    def bodies(self) -> list[bytes]:
        return [message.data for message in self.got]


@pytest.fixture(autouse=True)
def short(quick: Callable[[str, float], None]) -> None:
    quick("pull.EXPIRES", EXPIRES)


async def consumer(bus: Bus, **more: Any) -> str:
    """A fresh stream with a consumer `c`; returns its name."""
    name = fresh("stream")
    await js.ensure_stream(bus, {"name": name, "subjects": [f"{name}.>"]})
    config = {
        "name": "c",
        "durable_name": "c",
        "ack_policy": "explicit",
        "ack_wait": 2_000_000_000,
        "max_ack_pending": 10_000,
    }
    await js.ensure_consumer(bus, name, {**config, **more})
    return name


@pytest.fixture
async def name(bus: Bus) -> str:
    return await consumer(bus)


async def pinned(bus: Bus) -> str:
    return await consumer(
        bus,
        priority_groups=[GROUP],
        priority_policy="pinned_client",
        priority_timeout=int(PIN_TIMEOUT * 1e9),
    )


async def store(bus: Bus, name: str, count: int, first: int = 0) -> list[bytes]:
    bodies = [b"%d" % number for number in range(first, first + count)]
    acks = [await js.begin_store(bus, f"{name}.x", body) for body in bodies]
    for ack in acks:
        js.stored(await ack)
    return bodies


Started = Callable[..., Awaitable[Reader]]


@pytest.fixture
async def reader() -> AsyncIterator[Started]:
    """Starts readers and stops them at the end."""
    async with AsyncExitStack() as stack:

        async def start(bus: Bus, name: str, **options: Any) -> Reader:
            reader = Reader(bus, name, **({"slots": 1000} | options))
            await reader.pull.start()
            stack.push_async_callback(reader.pull.stop)
            return reader

        yield start


def settling(reader: Reader) -> asyncio.Task[None]:
    return asyncio.create_task(reader.settle_all())


# reading


async def test_what_is_stored_is_read_in_order(bus: Bus, name: str, reader: Started) -> None:
    bodies = await store(bus, name, 600)
    got = await reader(bus, name)
    await until(lambda: len(got.got) >= 600)
    assert got.bodies == bodies


async def test_what_comes_later_is_read_too(bus: Bus, name: str, reader: Started) -> None:
    got = await reader(bus, name)
    for number in range(5):
        await store(bus, name, 1, number)
        await got.reach(number + 1)
    assert got.bodies == [b"0", b"1", b"2", b"3", b"4"]


async def test_an_idle_reader_goes_on_reading(bus: Bus, name: str, reader: Started) -> None:
    """Longer than several pulls stay open."""
    got = await reader(bus, name)
    await asyncio.sleep(EXPIRES * 2.5)
    await store(bus, name, 1)
    await until(lambda: got.bodies == [b"0"])


async def test_what_is_not_acknowledged_comes_again(bus: Bus, name: str, reader: Started) -> None:
    await store(bus, name, 1)
    got = await reader(bus, name)
    await until(lambda: got.got)
    await bus.publish(got.held.pop().reply, b"-NAK")
    await until(lambda: len(got.got) == 2)
    assert [Delivery.of(message).attempt for message in got.got] == [1, 2]


# room


@pytest.mark.parametrize("slots", [1, 7])
async def test_no_more_is_held_than_there_is_room_for(
    bus: Bus, name: str, reader: Started, slots: int
) -> None:
    await store(bus, name, 50)
    got = await reader(bus, name, slots=slots)
    await until(lambda: len(got.held) == slots)
    await asyncio.sleep(0.1)
    assert got.bodies == [b"%d" % number for number in range(slots)]


@pytest.mark.parametrize("slots", [1, 2, 5, 64, 300])
async def test_under_load_there_is_never_more_than_room(
    bus: Bus, name: str, reader: Started, slots: int
) -> None:
    chance, total = random.Random(slots), min(400, 60 * slots)
    bodies = await store(bus, name, total)
    got = await reader(bus, name, slots=slots)
    settled = 0
    while settled < total:
        await until(lambda: got.held)
        count = chance.randint(1, len(got.held))
        await got.settle(count)
        settled += count
    assert got.most <= slots
    assert got.bodies == bodies


async def test_without_room_nothing_is_read(bus: Bus, name: str, reader: Started) -> None:
    await store(bus, name, 5)
    got = await reader(bus, name, slots=0)
    await asyncio.sleep(0.1)
    assert got.got == []
    got.slots = 5
    got.pull.wake()
    await until(lambda: len(got.got) == 5)


async def test_room_that_shrinks_is_respected_from_the_next_pull_on(
    bus: Bus, name: str, reader: Started
) -> None:
    got = await reader(bus, name, slots=5)
    await store(bus, name, 5)
    await until(lambda: len(got.held) == 5)
    got.slots = 2
    await got.settle(5)
    await store(bus, name, 5)
    await until(lambda: len(got.held) == 2)
    await asyncio.sleep(0.1)
    assert len(got.held) == 2


# losing


async def test_a_consumer_that_is_deleted_is_told(bus: Bus, name: str, reader: Started) -> None:
    got = await reader(bus, name)
    await until(lambda: got.pull.expected)
    await js.api(bus, f"CONSUMER.DELETE.{name}.c")
    await asyncio.wait_for(got.lost.wait(), 5)


async def test_a_consumer_that_is_not_there_is_told(bus: Bus, reader: Started) -> None:
    got = await reader(bus, fresh("nowhere"))
    await asyncio.wait_for(got.lost.wait(), 5)


async def test_after_stopping_nothing_is_read(bus: Bus, name: str, reader: Started) -> None:
    got = await reader(bus, name)
    await got.pull.stop()
    await store(bus, name, 1)
    await asyncio.sleep(0.1)
    assert (got.got, got.pull.expected) == ([], 0)


async def test_stopping_leaves_nothing_with_the_bus(bus: Bus, name: str, reader: Started) -> None:
    before = (len(bus._link._listeners), len(bus._subscriptions))
    await (await reader(bus, name)).pull.stop()
    assert (len(bus._link._listeners), len(bus._subscriptions)) == before


async def test_after_a_restart_of_the_server_reading_goes_on(
    frail: Station, reader: Started
) -> None:
    bus = await frail.connect()
    name = await consumer(bus)
    await store(bus, name, 3)
    got = await reader(bus, name)
    await until(lambda: len(got.got) == 3)
    await got.settle(3)
    await bus.flush()
    await frail.kill()
    await until(lambda: not bus.connected)
    await frail.start()
    await until(lambda: bus.connected)
    await store(bus, name, 3, 3)
    await until(lambda: {b"3", b"4", b"5"} <= set(got.bodies))


async def test_a_bus_without_patience_is_no_end(frail: Station, reader: Started) -> None:
    bus = await frail.connect(patience=0.05)
    name = await consumer(bus)
    got = await reader(bus, name)
    await frail.kill()
    await until(lambda: not bus.connected)
    got.pull.wake()
    await asyncio.sleep(0.2)  # by now a pull has failed
    await frail.start()
    await until(lambda: bus.connected)
    await store(bus, name, 1)
    await got.reach(1)


async def test_a_pull_that_the_server_has_forgotten_is_asked_for_again(
    bus: Bus, name: str, reader: Started
) -> None:
    got = await reader(bus, name, slots=0)
    got.pull._open["forgotten"] = 5
    got.pull._sent["forgotten"] = time.monotonic()
    got.slots = 5
    await store(bus, name, 1)
    await got.reach(1)


async def test_a_message_with_a_status_of_its_own_is_a_message(
    bus: Bus, name: str, reader: Started
) -> None:
    got = await reader(bus, name)
    await js.store(bus, f"{name}.x", b"1", headers={"Status": "404"})
    await until(lambda: got.bodies == [b"1"])
    assert not got.lost.is_set()


# pinned: one of several readers


async def test_of_two_readers_one_gets_all(station: Station, bus: Bus, reader: Started) -> None:
    name = await pinned(bus)
    first = await reader(bus, name, group=GROUP)
    second = await reader(await station.connect(), name, group=GROUP)
    work = [settling(first), settling(second)]
    for number in range(20):
        await store(bus, name, 5, number * 5)
    await until(lambda: len(first.got) + len(second.got) == 100)
    counts = sorted([len(first.got), len(second.got)])
    for task in work:
        task.cancel()
    assert counts == [0, 100]
    assert sorted([bool(first.pull.pin), bool(second.pull.pin)]) == [False, True]


async def test_when_the_one_is_gone_the_other_takes_over(
    station: Station, bus: Bus, reader: Started
) -> None:
    name = await pinned(bus)
    first = await reader(bus, name, group=GROUP)
    await store(bus, name, 3)
    await until(lambda: len(first.got) == 3)
    second = await reader(await station.connect(), name, group=GROUP)
    await first.settle(3)
    await first.pull.stop()
    await store(bus, name, 3, 3)
    await until(lambda: second.bodies == [b"3", b"4", b"5"], within=PIN_TIMEOUT * 5)
    assert len(first.got) == 3


async def test_a_pin_that_is_given_up_is_taken_at_once(
    station: Station, bus: Bus, reader: Started
) -> None:
    name = await pinned(bus)
    first = await reader(bus, name, group=GROUP)
    await store(bus, name, 1)
    await until(lambda: first.pull.pin)
    second = await reader(await station.connect(), name, group=GROUP)
    await first.settle()
    await first.pull.stop()
    await js.api(bus, f"CONSUMER.UNPIN.{name}.c", {"group": GROUP})
    await store(bus, name, 1, 1)
    await until(lambda: second.bodies == [b"1"], within=PIN_TIMEOUT * 0.8)


async def test_an_idle_reader_keeps_its_pin(station: Station, bus: Bus, reader: Started) -> None:
    name = await pinned(bus)
    first = await reader(bus, name, group=GROUP)
    await store(bus, name, 1)
    await until(lambda: first.pull.pin)
    await first.settle()
    second = await reader(await station.connect(), name, group=GROUP)
    await asyncio.sleep(PIN_TIMEOUT * 2.5)
    await store(bus, name, 1, 1)
    await until(lambda: len(first.got) + len(second.got) == 2)
    assert first.bodies == [b"0", b"1"]


async def test_a_full_reader_keeps_its_pin(station: Station, bus: Bus, reader: Started) -> None:
    """Messages wait for it and nobody else gets them, however long its work takes."""
    name = await pinned(bus)
    await store(bus, name, 10)
    first = await reader(bus, name, slots=2, group=GROUP)
    await until(lambda: len(first.held) == 2)
    second = await reader(await station.connect(), name, group=GROUP)
    for _ in range(10):
        await asyncio.sleep(PIN_TIMEOUT * 0.3)
        for message in first.held:
            await bus.publish(message.reply, b"+WPI")
    assert second.got == []
    work = settling(first)
    await until(lambda: len(first.got) == 10)
    work.cancel()
    assert (second.got, first.most) == ([], 2)


async def test_who_comes_back_to_a_lost_pin_waits_its_turn(
    station: Station, bus: Bus, reader: Started
) -> None:
    name = await pinned(bus)
    first = await reader(bus, name, slots=1, group=GROUP)
    await store(bus, name, 1)
    await first.reach(1)
    await js.api(bus, f"CONSUMER.UNPIN.{name}.c", {"group": GROUP})
    second = await reader(await station.connect(), name, group=GROUP)
    await store(bus, name, 1, 1)
    await second.reach(1)
    await first.settle()
    await until(lambda: not first.pull.pin)
    await second.settle()
    await second.pull.stop()
    await store(bus, name, 1, 2)
    await until(lambda: b"2" in first.bodies, within=PIN_TIMEOUT * 5)


async def test_a_pin_that_was_taken_away_is_asked_for_anew(bus: Bus, reader: Started) -> None:
    name = await pinned(bus)
    only = await reader(bus, name, group=GROUP)
    await store(bus, name, 1)
    await until(lambda: only.pull.pin)
    before = only.pull.pin
    await js.api(bus, f"CONSUMER.UNPIN.{name}.c", {"group": GROUP})
    await store(bus, name, 1, 1)
    await until(lambda: len(only.got) == 2)
    assert only.pull.pin != before
