"""A reader of a stream: in order, without gaps or repeats, never more than there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from tenantry.bus import Bus, Message, Subscription
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.bus.reader import Reader
from tenantry.errors import JetStreamError, NotAllowed
from tests.unit.bus.station import Station, fresh, stream, until

MANY = 2000
Quick = Callable[[str, float], None]


class Reading:
    """A reader, and what it has received."""

    def __init__(
        self, bus: Bus, name: str, *, first: int = 1, room: int = 512, **more: Any
    ) -> None:
        self.bus = bus
        self.name = name
        self.got: list[int] = []
        self.messages: list[Message] = []
        self.deliveries: list[Delivery] = []
        self.emptied = 0
        self.failures = 0
        self.held = 0
        self.limit = room
        self.holds = False
        self.on_message: Callable[[], None] = lambda: None
        self.reader = Reader(
            bus,
            name,
            more.pop("subject", f"{name}.>"),
            first,
            receive=self._receive,
            room=lambda: self.limit - self.held,
            empty=self._empty,
            failed=self._failed,
            **more,
        )

    def _receive(self, message: Message, delivery: Delivery) -> None:
        self.got.append(delivery.seq)
        self.messages.append(message)
        self.deliveries.append(delivery)
        self.held += self.holds
        self.on_message()

    def _empty(self) -> None:
        self.emptied += 1

    def _failed(self) -> None:
        self.failures += 1

    async def reach(self, count: int) -> None:
        """Return when so many messages have come."""
        await until(lambda: len(self.got) >= count)

    async def consumers(self) -> list[str]:
        found = await js.api(self.bus, f"CONSUMER.NAMES.{self.name}")
        return found["consumers"] or []

    async def no_consumers(self) -> None:
        """Return when the stream has no consumer."""
        async with asyncio.timeout(10):
            while await self.consumers():
                await asyncio.sleep(0.01)

    async def lose_consumer(self) -> None:
        """Delete the consumer behind the reader's back."""
        for consumer in await self.consumers():
            await js.api(self.bus, f"CONSUMER.DELETE.{self.name}.{consumer}")


Started = Callable[..., Awaitable[Reading]]


@pytest.fixture
async def start() -> AsyncIterator[Started]:
    """Starts readers, and stops them at the end."""
    async with AsyncExitStack() as stack:

        async def begin(bus: Bus, name: str, **options: Any) -> Reading:
            reading = Reading(bus, name, **options)
            await reading.reader.start()
            stack.push_async_callback(reading.reader.stop)
            return reading

        yield begin


@pytest.fixture
async def name(bus: Bus) -> str:
    """A stream with many messages."""
    name = await stream(bus, 0)
    await store(bus, name, MANY)
    return name


async def store(bus: Bus, name: str, count: int, *, size: int = 1, subject: str = "0") -> None:
    for begun in range(0, count, 100):
        acks = [
            await js.begin_store(bus, f"{name}.{subject}", bytes(size))
            for _ in range(min(100, count - begun))
        ]
        for ack in acks:
            js.stored(await ack)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes of all pulls, as they are sent."""
    batches: list[int] = []
    post = Bus.post

    def spy(self: Bus, subject: str, payload: bytes = b"", **more: Any) -> bool:
        if ".MSG.NEXT." in subject:
            batches.append(msgspec.json.decode(payload)["batch"])
        return post(self, subject, payload, **more)

    monkeypatch.setattr(Bus, "post", spy)
    return batches


class Lossy:
    """Hands what a bus's listener hears on, but for what `drops` picks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, drops: Callable[[Message], bool]) -> None:
        self.dropped = 0
        listen = Bus.listen

        async def lossy(
            bus: Bus, subject: str, listener: Callable[[Message], None], **more: Any
        ) -> Subscription:
            def hear(message: Message) -> None:
                if drops(message):
                    self.dropped += 1
                else:
                    listener(message)

            return await listen(bus, subject, hear, **more)

        monkeypatch.setattr(Bus, "listen", lossy)


def sequence(message: Message) -> int:
    """The sequence of a stream's message, 0 for everything else."""
    return Delivery.of(message).seq if message.reply.startswith("$JS.ACK.") else 0


# order


async def test_all_messages_come_in_order(bus: Bus, name: str, start: Started) -> None:
    reading = await start(bus, name)
    await reading.reach(MANY)
    assert reading.got == list(range(1, MANY + 1))


async def test_messages_come_as_they_are_stored(bus: Bus, start: Started) -> None:
    name = await stream(bus, 3)
    reading = await start(bus, name)
    await reading.reach(3)
    await store(bus, name, 2)
    await reading.reach(5)
    assert reading.got == [1, 2, 3, 4, 5]


async def test_it_begins_with_the_first_sequence(bus: Bus, name: str, start: Started) -> None:
    reading = await start(bus, name, first=MANY - 4)
    await reading.reach(5)
    assert reading.got == list(range(MANY - 4, MANY + 1))


async def test_only_messages_on_the_subject_come(bus: Bus, start: Started) -> None:
    name = await stream(bus, 6)
    reading = await start(bus, name, subject=f"{name}.1")
    await reading.reach(3)
    assert reading.got == [2, 4, 6]


async def test_next_is_the_sequence_after_the_last_one(bus: Bus, start: Started) -> None:
    name = await stream(bus, 6)
    reading = await start(bus, name, subject=f"{name}.1", first=3)
    assert reading.reader.next == 3
    await reading.reach(2)
    assert reading.reader.next == 7


async def test_a_delivery_tells_how_many_messages_are_left(bus: Bus, start: Started) -> None:
    reading = await start(bus, await stream(bus, 3))
    await reading.reach(3)
    assert [each.pending for each in reading.deliveries] == [2, 1, 0]


async def test_headers_only(bus: Bus, start: Started) -> None:
    name = await stream(bus, 1)
    reading = await start(bus, name, headers_only=True)
    await reading.reach(1)
    (message,) = reading.messages
    assert (message.data, (message.headers or {})["Nats-Msg-Size"]) == (b"", "1")


async def test_with_bodies(bus: Bus, start: Started) -> None:
    reading = await start(bus, await stream(bus, 1))
    await reading.reach(1)
    assert reading.messages[0].data == b"x"


# start time


async def middle(bus: Bus, name: str, start: Started) -> float:
    """A time between the tenth message and the one after it."""
    reading = await start(bus, name)
    await reading.reach(20)
    return (reading.deliveries[9].stored + reading.deliveries[10].stored) / 2


async def test_it_begins_with_the_start_time(bus: Bus, start: Started) -> None:
    name = await stream(bus, 20)
    since = await middle(bus, name, start)
    reading = await start(bus, name, start_time=since)
    await reading.reach(10)
    assert reading.got == list(range(11, 21))


async def test_a_new_consumer_goes_on_after_the_last_message_and_not_at_the_start_time(
    bus: Bus, start: Started
) -> None:
    name = await stream(bus, 20)
    since = await middle(bus, name, start)
    reading = await start(bus, name, start_time=since)
    await reading.reach(10)
    await reading.lose_consumer()
    await until(lambda: reading.reader.recreated == 1)
    await store(bus, name, 1)
    await reading.reach(11)
    assert reading.got == list(range(11, 22))


async def test_a_new_consumer_begins_with_the_start_time_if_nothing_has_come(
    bus: Bus, start: Started
) -> None:
    name = await stream(bus, 20)
    since = await middle(bus, name, start)
    reading = await start(bus, name, start_time=since, room=0)
    await until(lambda: reading.reader._open)
    reading.reader.restart("for a test")
    await until(lambda: reading.reader.recreated == 1)
    reading.limit = 512
    reading.reader.more()
    await reading.reach(10)
    assert reading.got == list(range(11, 21))


# empty


async def test_empty_is_called_where_there_is_no_message(bus: Bus, start: Started) -> None:
    reading = await start(bus, await stream(bus, 0))
    await until(lambda: reading.emptied == 1)


async def test_empty_is_not_called_where_there_is_one(bus: Bus, start: Started) -> None:
    reading = await start(bus, await stream(bus, 1))
    await reading.reach(1)
    assert reading.emptied == 0


async def test_empty_is_called_after_a_new_creation_that_finds_no_message(
    bus: Bus, start: Started
) -> None:
    reading = await start(bus, await stream(bus, 1))
    await reading.reach(1)
    await reading.lose_consumer()
    await until(lambda: reading.emptied == 1)


# losses


async def test_a_restart_of_the_server_loses_nothing(frail: Station, start: Started) -> None:
    bus = await frail.connect()
    name = await stream(bus, 0)
    await store(bus, name, MANY)
    reading = await start(bus, name, room=300)
    reading.holds = True
    await until(lambda: len(reading.got) >= 200)
    await frail.kill()
    await frail.start()
    reading.holds, reading.held = False, 0
    await until(lambda: bus.connected)
    reading.reader.more()
    await reading.reach(MANY)
    assert reading.got == list(range(1, MANY + 1))


async def test_an_idle_reader_goes_on_after_a_restart_of_the_server(
    frail: Station, start: Started
) -> None:
    bus = await frail.connect()
    name = await stream(bus, 3)
    reading = await start(bus, name)
    await reading.reach(3)
    await frail.kill()
    await frail.start()
    await until(lambda: bus.connected)
    await store(bus, name, 1)
    await reading.reach(4)
    assert reading.got == [1, 2, 3, 4]
    assert reading.reader.broken == "the connection was lost"


async def test_a_reader_may_start_while_the_server_is_away(frail: Station, start: Started) -> None:
    bus = await frail.connect()
    name = await stream(bus, 3)
    await frail.kill()
    await until(lambda: not bus.connected)
    reading = await start(bus, name)
    await frail.start()
    await reading.reach(3)


async def test_a_consumer_that_is_deleted_is_created_again(
    bus: Bus, name: str, start: Started
) -> None:
    reading = await start(bus, name, room=512)
    reading.holds = True
    await until(lambda: len(reading.got) >= 300)
    await reading.lose_consumer()
    reading.holds, reading.held = False, 0
    reading.reader.more()
    await reading.reach(MANY)
    assert reading.got == list(range(1, MANY + 1))
    assert reading.reader.recreated == 1


async def test_a_consumer_that_is_deleted_while_there_is_no_room_is_created_again(
    bus: Bus, name: str, start: Started
) -> None:
    """As it is after a stall of more than 30 s: nobody answers the next pull."""
    reading = await start(bus, name, room=256)
    reading.holds = True
    await until(lambda: len(reading.got) == 256 and not reading.reader._asked)
    await reading.lose_consumer()
    reading.holds, reading.held = False, 0
    reading.reader.more()
    await reading.reach(MANY)
    assert reading.got == list(range(1, MANY + 1))
    assert reading.reader.broken.startswith("503")


@pytest.mark.parametrize("lost", [1, 2, 700])
async def test_a_message_that_is_lost_comes_once_more(
    bus: Bus, name: str, start: Started, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    lossy = Lossy(monkeypatch, lambda message: sequence(message) == lost and not lossy.dropped)
    reading = await start(bus, name)
    await reading.reach(MANY)
    assert lossy.dropped == 1
    assert reading.got == list(range(1, MANY + 1))
    assert reading.reader.broken.startswith("messages were lost")


async def test_a_lost_message_with_none_behind_it_shows_in_the_heartbeat(
    bus: Bus, start: Started, monkeypatch: pytest.MonkeyPatch, quick: Quick
) -> None:
    quick("reader._BEAT", 0.2)
    lossy = Lossy(monkeypatch, lambda message: sequence(message) == 3 and not lossy.dropped)
    reading = await start(bus, await stream(bus, 3))
    await reading.reach(3)
    assert reading.got == [1, 2, 3]
    assert reading.reader.broken == "messages were lost: 3 are sent, 2 have come"


async def anew(bus: Bus, start: Started) -> tuple[Reading, str]:
    """A reader of three messages that has its second consumer, and the reply of its first pull."""
    reading = await start(bus, await stream(bus, 3))
    await reading.reach(3)
    reply = reading.reader._reply
    await reading.lose_consumer()
    await until(lambda: reading.reader.recreated == 1)
    return reading, reply


async def test_a_message_of_a_former_consumer_is_dropped(bus: Bus, start: Started) -> None:
    reading, _ = await anew(bus, start)
    reading.reader._take(reading.messages[0])
    assert reading.got == [1, 2, 3]


async def test_the_end_of_a_former_consumer_is_none_of_this_one(bus: Bus, start: Started) -> None:
    reading, reply = await anew(bus, start)
    end = b"NATS/1.0 409 Consumer Deleted\r\n\r\n"
    reading.reader._take(Message(reply, "", b"", end))
    assert reading.reader._open
    reading.reader._take(Message(reading.reader._reply, "", b"", end))
    assert not reading.reader._open


async def test_nothing_is_missed_while_there_is_no_room(
    bus: Bus, start: Started, monkeypatch: pytest.MonkeyPatch, quick: Quick
) -> None:
    """A reader that has asked for nothing expects no heartbeat; one that has asked, does."""
    quick("reader._BEAT", 0.1)
    quick("reader._LOOK", 0.05)
    Lossy(monkeypatch, lambda _: True)
    name = await stream(bus, 3)
    without, deaf = await start(bus, name, room=0), await start(bus, name)
    await until(lambda: deaf.reader.recreated == 3)
    assert without.reader.recreated == 0


async def test_a_server_that_falls_silent_is_asked_anew(
    bus: Bus, start: Started, monkeypatch: pytest.MonkeyPatch, quick: Quick
) -> None:
    quick("reader._BEAT", 0.1)
    quick("reader._LOOK", 0.05)
    deaf = True
    Lossy(monkeypatch, lambda _: deaf)
    name = await stream(bus, 0)
    reading = await start(bus, name)
    await until(lambda: reading.reader.broken == "the server is silent")
    deaf = False
    await store(bus, name, 1)
    await reading.reach(1)


async def test_a_server_with_nothing_to_send_is_left_alone(
    bus: Bus, start: Started, quick: Quick
) -> None:
    quick("reader._BEAT", 0.1)
    quick("reader._LOOK", 0.05)
    reading = await start(bus, await stream(bus, 0))
    await until(lambda: reading.reader._statuses >= 10)
    assert reading.reader.recreated == 0


async def test_a_pull_whose_time_is_over_is_replaced(
    bus: Bus, start: Started, quick: Quick, asked: list[int]
) -> None:
    quick("reader._EXPIRES", 0.3)
    quick("reader._BEAT", 0.1)
    name = await stream(bus, 1)
    reading = await start(bus, name, batch=16)
    await until(lambda: len(asked) >= 4)
    await store(bus, name, 1)
    await reading.reach(2)
    assert reading.reader.recreated == 0
    assert reading.reader._asked <= 32


async def test_it_goes_on_over_other_credentials(bus: Bus, start: Started, quick: Quick) -> None:
    quick("reader._LOOK", 0.05)
    name = await stream(bus, 3)
    reading = await start(bus, name)
    await reading.reach(3)
    await bus.renew()
    await until(lambda: reading.reader.recreated == 1)
    await store(bus, name, 1)
    await reading.reach(4)
    assert reading.got == [1, 2, 3, 4]


# room


async def test_without_room_it_stops_exactly(bus: Bus, name: str, start: Started) -> None:
    reading = await start(bus, name, room=300)
    reading.holds = True
    await until(lambda: reading.reader._open and not reading.reader._asked)
    before = len(reading.got)
    reading.reader.more()
    await bus.flush()
    assert 300 - 128 <= before <= 300
    assert len(reading.got) == before


async def test_with_room_again_it_goes_on(bus: Bus, name: str, start: Started) -> None:
    reading = await start(bus, name, room=300)
    reading.holds = True
    await until(lambda: reading.reader._open and not reading.reader._asked)
    reading.holds, reading.held = False, 0
    reading.reader.more()
    await reading.reach(MANY)
    assert reading.got == list(range(1, MANY + 1))


async def test_no_room_at_all_and_nothing_is_asked_for(
    bus: Bus, name: str, start: Started, asked: list[int]
) -> None:
    reading = await start(bus, name, room=0)
    await until(lambda: reading.reader._open)
    reading.reader.more()
    assert asked == []


async def test_room_for_less_than_half_a_batch_is_not_asked_for(
    bus: Bus, name: str, start: Started, asked: list[int]
) -> None:
    reading = await start(bus, name, room=7, batch=16)
    await until(lambda: reading.reader._open)
    reading.reader.more()
    assert asked == []


async def test_room_for_half_a_batch_is_asked_for(
    bus: Bus, name: str, start: Started, asked: list[int]
) -> None:
    reading = await start(bus, name, room=8, batch=16)
    reading.holds = True
    await reading.reach(8)
    assert asked == [8]


async def test_a_batch_of_one_reads_all(bus: Bus, start: Started) -> None:
    reading = await start(bus, await stream(bus, 10), room=1, batch=1)
    await reading.reach(10)
    assert reading.got == list(range(1, 11))


async def test_small_messages_are_asked_for_in_full_batches(
    bus: Bus, name: str, start: Started, asked: list[int]
) -> None:
    reading = await start(bus, name)
    await reading.reach(MANY)
    assert max(asked) == 256
    assert len(asked) < 20


@pytest.mark.parametrize(("size", "most"), [(20_000, 110), (500_000, 8)])
async def test_large_messages_are_asked_for_in_smaller_batches(
    bus: Bus, start: Started, asked: list[int], size: int, most: int
) -> None:
    name = await stream(bus, 0)
    count = 60_000_000 // size if size > 100_000 else 600
    await store(bus, name, count, size=size)
    reading = await start(bus, name)
    await reading.reach(count)
    assert reading.got == list(range(1, count + 1))
    assert asked[-1] <= most


# stop


async def test_nothing_comes_after_stop(bus: Bus, name: str) -> None:
    reading = Reading(bus, name)
    await reading.reader.start()
    stopping: list[asyncio.Task[None]] = []

    def stop_at_ten() -> None:
        if len(reading.got) == 10:
            stopping.append(asyncio.create_task(reading.reader.stop()))

    reading.on_message = stop_at_ten
    await reading.reach(10)
    await stopping[0]
    before = len(reading.got)
    await store(bus, name, 10)
    assert len(reading.got) == before


async def test_nothing_comes_from_the_call_of_stop_on(bus: Bus, name: str) -> None:
    reading = Reading(bus, name)
    await reading.reader.start()
    await reading.reach(1)
    stopping = reading.reader.stop()
    before = len(reading.got)
    await stopping
    assert len(reading.got) == before


async def test_stop_deletes_the_consumer(bus: Bus, name: str) -> None:
    reading = Reading(bus, name)
    await reading.reader.start()
    await reading.reach(1)
    assert len(await reading.consumers()) == 1
    await reading.reader.stop()
    await reading.no_consumers()


async def test_stop_ends_the_subscription(bus: Bus, name: str) -> None:
    before = len(bus._subscriptions)
    reading = Reading(bus, name)
    await reading.reader.start()
    await reading.reach(1)
    assert len(bus._subscriptions) == before + 1
    await reading.reader.stop()
    assert len(bus._subscriptions) == before


async def test_a_reader_that_has_not_begun_can_be_stopped(bus: Bus, name: str) -> None:
    reading = Reading(bus, name)
    await reading.reader.start()
    await reading.reader.stop()
    await reading.reader.stop()
    assert reading.got == []


async def test_it_stops_while_the_server_is_away(frail: Station) -> None:
    bus = await frail.connect()
    reading = Reading(bus, await stream(bus, 3))
    await reading.reader.start()
    await reading.reach(3)
    await frail.kill()
    await until(lambda: not bus.connected)
    await asyncio.wait_for(reading.reader.stop(), 10)


# what can't be read


async def test_a_stream_that_does_not_exist_is_the_failure(bus: Bus, start: Started) -> None:
    reading = await start(bus, fresh("nowhere"))
    await until(lambda: reading.failures)
    assert isinstance(reading.reader.failure, JetStreamError)
    assert reading.reader.failure.err_code == js.STREAM_NOT_FOUND


async def test_a_stream_that_is_created_later_is_read(bus: Bus, start: Started) -> None:
    name = fresh("later")
    reading = await start(bus, name)
    await until(lambda: reading.failures)
    await js.ensure_stream(bus, {"name": name, "subjects": [f"{name}.>"]})
    await store(bus, name, 3)
    await reading.reach(3)
    assert reading.reader.failure is None


async def test_a_stream_that_is_not_allowed_is_the_failure(
    station: Station, bus: Bus, name: str, start: Started
) -> None:
    reading = await start(await station.connect("service", "orders"), name)
    await until(lambda: reading.failures)
    assert isinstance(reading.reader.failure, NotAllowed)


async def test_failures_that_may_pass_are_none(
    bus: Bus, start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise JetStreamError("maximum consumers limit reached", err_code=10026)

    name = await stream(bus, 3)
    monkeypatch.setattr("tenantry.bus.reader.api", full)
    reading = await start(bus, name)
    await until(lambda: reading.failures >= 2)
    assert reading.reader.failure is None
    assert reading.reader.broken == "maximum consumers limit reached"
    monkeypatch.undo()
    await reading.reach(3)
