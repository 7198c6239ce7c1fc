"""Batched direct get: many messages of a stream by one request."""

from __future__ import annotations

import asyncio
import time

import pytest

from tenantry.bus import Bus, Message
from tenantry.bus import jetstream as js
from tenantry.errors import DeadlineExceeded, JetStreamError, Unavailable
from tests.unit.bus.station import Station, fresh


@pytest.fixture
async def name(bus: Bus) -> str:
    """A stream with ten messages, by turns on `<name>.a` and `<name>.b`."""
    name = fresh("stream")
    config = {"name": name, "subjects": [f"{name}.*"], "allow_direct": True, "storage": "memory"}
    await js.ensure_stream(bus, config | {"allow_msg_ttl": True})
    for number in range(10):
        headers = {"Nats-Msg-Id": str(number), "Nats-TTL": "1h", "Colour": "red"}
        await js.store(bus, f"{name}.{'ab'[number % 2]}", b"%d" % number, headers=headers)
    return name


async def test_the_messages_of_one_subject_come_in_order(bus: Bus, name: str) -> None:
    found = await js.get_batch(bus, name, seq=1, subject=f"{name}.a")
    assert [(each.seq, each.data) for each in found] == [
        (1, b"0"),
        (3, b"2"),
        (5, b"4"),
        (7, b"6"),
        (9, b"8"),
    ]
    assert {each.subject for each in found} == {f"{name}.a"}


async def test_a_message_has_its_own_headers_and_no_others(bus: Bus, name: str) -> None:
    first = (await js.get_batch(bus, name, batch=1))[0]
    assert first.headers == {"Nats-Msg-Id": "0", "Nats-TTL": "1h", "Colour": "red"}


async def test_a_message_without_headers_has_none(bus: Bus, name: str) -> None:
    await js.store(bus, f"{name}.c", b"bare")
    (message,) = await js.get_batch(bus, name, subject=f"{name}.c")
    assert (message.headers, message.data) == ({}, b"bare")


async def test_a_message_tells_when_it_was_stored(bus: Bus, name: str) -> None:
    (message,) = await js.get_batch(bus, name, seq=10)
    assert abs(message.time - time.time()) < 60


async def test_a_batch_begins_at_its_sequence(bus: Bus, name: str) -> None:
    found = await js.get_batch(bus, name, seq=4, subject=f"{name}.a")
    assert [each.seq for each in found] == [5, 7, 9]


async def test_a_batch_has_no_more_than_was_asked_for(bus: Bus, name: str) -> None:
    found = await js.get_batch(bus, name, batch=3)
    assert [(each.seq, each.pending) for each in found] == [(1, 9), (2, 8), (3, 7)]


async def test_a_batch_ends_with_its_bytes(bus: Bus, name: str) -> None:
    await js.store(bus, f"{name}.big", bytes(10_000))
    await js.store(bus, f"{name}.big", bytes(10_000))
    found = await js.get_batch(bus, name, seq=9, max_bytes=5_000)
    assert [each.seq for each in found] == [9, 10, 11]


async def test_what_is_greater_than_a_batch_comes_alone(bus: Bus, name: str) -> None:
    await js.store(bus, f"{name}.big", bytes(10_000))
    found = await js.get_batch(bus, name, seq=11, max_bytes=1)
    assert [len(each.data) for each in found] == [10_000]


async def test_beyond_the_end_there_is_nothing(bus: Bus, name: str) -> None:
    assert await js.get_batch(bus, name, seq=11) == []


async def test_on_a_subject_without_messages_there_is_nothing(bus: Bus, name: str) -> None:
    assert await js.get_batch(bus, name, subject=f"{name}.nobody") == []


async def test_what_was_erased_is_just_not_there(bus: Bus, name: str) -> None:
    await js.api(bus, f"STREAM.PURGE.{name}", {"seq": 3})
    await js.api(bus, f"STREAM.MSG.DELETE.{name}", {"seq": 5})
    found = await js.get_batch(bus, name, seq=1)
    assert [each.seq for each in found] == [3, 4, 6, 7, 8, 9, 10]


async def test_a_batch_can_begin_at_a_time(bus: Bus, name: str) -> None:
    await asyncio.sleep(0.01)  # a step of the server's clock, not a wait for it
    now = time.time()
    assert await js.get_batch(bus, name, start_time=now) == []
    await js.store(bus, f"{name}.b", b"later")
    await js.store(bus, f"{name}.a", b"latest")
    found = await js.get_batch(bus, name, subject=f"{name}.a", start_time=now)
    assert [each.seq for each in found] == [12]
    whole = await js.get_batch(bus, name, start_time=0.0)
    assert len(whole) == 12


async def test_a_stream_that_is_not_there_is_told(bus: Bus) -> None:
    with pytest.raises(Unavailable):
        await js.get_batch(bus, "NOWHERE")


async def test_thousands_come_complete(bus: Bus, name: str) -> None:
    for _ in range(20):
        asked = [await js.begin_store(bus, f"{name}.c", bytes(500)) for _ in range(100)]
        await asyncio.gather(*asked)
    found = await js.get_batch(bus, name, subject=f"{name}.c", batch=5_000)
    assert [each.seq for each in found] == list(range(11, 2_011))


async def test_a_lost_connection_ends_a_batch_at_once(frail: Station) -> None:
    bus = await frail.connect()
    await bus.subscribe("black.hole", _swallow)
    waiting = asyncio.create_task(bus.collect("black.hole", last=bool, timeout=60))
    await bus.flush()
    await frail.kill()
    with pytest.raises(Unavailable, match="lost"):
        await waiting


async def test_a_batch_without_an_end_is_given_up(bus: Bus) -> None:
    await bus.subscribe("deep.hole", _swallow)
    with pytest.raises(DeadlineExceeded, match=r"deep\.hole"):
        await bus.collect("deep.hole", last=bool, timeout=0.05)


# what the server answers, by one that leaves something out


def _answer(seq: int, former: int) -> dict[str, str]:
    return {
        "Nats-Subject": "x",
        "Nats-Sequence": str(seq),
        "Nats-Time-Stamp": "2026-01-01T00:00:00Z",
        "Nats-Last-Sequence": str(former),
    }


@pytest.mark.parametrize(
    ("answers", "last"),
    [
        ([(1, 0), (3, 2)], 3),  # the second of three
        ([(2, 1)], 2),  # the first
        ([(1, 0)], 2),  # the last
        ([], 2),  # all
    ],
)
async def test_a_message_lost_on_the_way_is_noticed(
    bus: Bus, answers: list[tuple[int, int]], last: int
) -> None:
    await _pretend(bus, stream := fresh("lossy"), answers, last)
    with pytest.raises(Unavailable, match="were lost"):
        await js.get_batch(bus, stream)


async def test_nothing_lost_is_nothing_noticed(bus: Bus) -> None:
    await _pretend(bus, stream := fresh("sound"), [(1, 0), (2, 1)], 2)
    assert [each.seq for each in await js.get_batch(bus, stream)] == [1, 2]


async def test_a_refusal_is_told(bus: Bus) -> None:
    stream = fresh("closed")

    async def refuse(ask: Message) -> None:
        headers = {"Status": "408", "Description": "Bad Request"}
        await bus.publish(ask.reply, headers=headers)

    await bus.subscribe(f"$JS.API.DIRECT.GET.{stream}", refuse)
    with pytest.raises(JetStreamError, match="Bad Request") as caught:
        await js.get_batch(bus, stream)
    assert caught.value.status == 408


async def _pretend(bus: Bus, stream: str, answers: list[tuple[int, int]], last: int) -> None:
    async def serve(ask: Message) -> None:
        for seq, former in answers:
            await bus.publish(ask.reply, b"x", headers=_answer(seq, former))
        end = {"Status": "204", "Description": "EOB", "Nats-Last-Sequence": str(last)}
        await bus.publish(ask.reply, headers=end)

    await bus.subscribe(f"$JS.API.DIRECT.GET.{stream}", serve)


async def _swallow(_: Message) -> None:
    return None
