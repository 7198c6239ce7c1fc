"""JetStream by its wire API: streams, consumers, acknowledgements."""

from __future__ import annotations

from typing import Any

import pytest

from tenantry.bus import Bus, Message
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery, Stored
from tenantry.errors import JetStreamError, Unavailable
from tests.unit.bus.station import Heard, fresh


def stream(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "subjects": [f"{name}.>"], "storage": "memory", **more}


@pytest.fixture
async def name(bus: Bus) -> str:
    """A fresh stream."""
    name = fresh("stream")
    await js.ensure_stream(bus, stream(name))
    return name


# what a delivery says


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.JOURNAL.orders-0.3.17.5.1700000000123456789.42",
        "$JS.ACK._.abcdef.JOURNAL.orders-0.3.17.5.1700000000123456789.42",
        "$JS.ACK.hub.abcdef.JOURNAL.orders-0.3.17.5.1700000000123456789.42.r4nd0m",
    ],
)
def test_an_ack_subject_is_read_in_each_of_its_forms(reply: str) -> None:
    message = Message("x", reply, b"")
    delivery = Delivery.of(message)
    assert (delivery.attempt, delivery.seq, delivery.pending) == (3, 17, 42)
    assert delivery.stored == pytest.approx(1700000000.1234567, abs=1e-6)


@pytest.mark.parametrize("reply", ["", "$JS.ACK.x", "_INBOX.a.b"])
def test_what_is_no_ack_subject_is_a_mistake(reply: str) -> None:
    with pytest.raises(ValueError, match="not enough values"):
        Delivery.of(Message("x", reply, b""))


# publishing


async def test_what_is_stored_is_acknowledged(bus: Bus, name: str) -> None:
    assert await js.store(bus, f"{name}.a", b"1") == Stored(name, 1)
    assert await js.store(bus, f"{name}.b", b"2") == Stored(name, 2)


async def test_a_repeat_is_stored_once(bus: Bus, name: str) -> None:
    headers = {"Nats-Msg-Id": "m1"}
    first = await js.store(bus, f"{name}.a", b"1", headers=headers)
    again = await js.store(bus, f"{name}.a", b"1", headers=headers)
    assert again == Stored(name, first.seq, duplicate=True)


async def test_several_may_be_under_way(bus: Bus, name: str) -> None:
    acks = [await js.begin_store(bus, f"{name}.a", b"%d" % number) for number in range(100)]
    assert [js.stored(await ack).seq for ack in acks] == list(range(1, 101))


async def test_a_stream_that_refuses_says_why(bus: Bus, name: str) -> None:
    with pytest.raises(JetStreamError) as caught:
        await js.store(bus, f"{name}.a", b"", headers={"Nats-Expected-Last-Subject-Sequence": "7"})
    assert (caught.value.status, caught.value.err_code) == (400, js.WRONG_LAST_SEQUENCE)


async def test_a_subject_that_no_stream_stores_is_told(bus: Bus) -> None:
    with pytest.raises(Unavailable):
        await js.store(bus, fresh(), b"")


@pytest.mark.parametrize("answer", [b"", b"thanks", b"{}", b"[]", b'{"ok": true}', b'{"seq": 1}'])
async def test_the_answer_of_somebody_else_is_no_acknowledgement(bus: Bus, answer: bytes) -> None:
    subject = fresh()

    async def reply(message: Message) -> None:
        await bus.answer(message, answer)

    await bus.subscribe(subject, reply)
    with pytest.raises(Unavailable, match="no stream stores this subject"):
        await js.store(bus, subject, b"")


# the API


async def test_an_error_of_the_api_has_its_codes(bus: Bus) -> None:
    with pytest.raises(JetStreamError, match="stream not found") as caught:
        await js.api(bus, "STREAM.INFO.NOWHERE")
    assert (caught.value.status, caught.value.err_code) == (js.NOT_FOUND, js.STREAM_NOT_FOUND)


async def test_a_stream_is_made(bus: Bus) -> None:
    name = fresh("stream")
    info = await js.ensure_stream(bus, stream(name, max_msgs=5))
    assert info["config"]["max_msgs"] == 5


async def test_a_stream_that_is_there_is_left_alone(bus: Bus, name: str) -> None:
    await js.store(bus, f"{name}.a", b"1")
    info = await js.ensure_stream(bus, stream(name))
    assert info["state"]["messages"] == 1
    assert info["type"].endswith("stream_info_response")  # not updated


async def test_a_stream_is_brought_to_what_is_wanted(bus: Bus, name: str) -> None:
    await js.store(bus, f"{name}.a", b"1")
    info = await js.ensure_stream(bus, stream(name, max_msgs=7))
    assert (info["config"]["max_msgs"], info["state"]["messages"]) == (7, 1)


async def test_what_is_not_named_stays_as_it_is(bus: Bus, name: str) -> None:
    await js.ensure_stream(bus, stream(name, max_msgs=7))
    info = await js.ensure_stream(bus, stream(name, max_msg_size=100))
    assert (info["config"]["max_msgs"], info["config"]["max_msg_size"]) == (7, 100)


async def test_a_change_that_cannot_be_is_told(bus: Bus, name: str) -> None:
    with pytest.raises(JetStreamError, match="storage"):
        await js.ensure_stream(bus, stream(name, storage="file"))


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"a": 1}, True),
        ({"a": 2}, False),
        ({"missing": None}, True),
        ({"missing": 0}, True),
        ({"missing": ""}, True),
        ({"missing": []}, True),
        ({"missing": 1}, False),
        ({"b": {"c": 1}}, True),
        ({"b": {"c": 2}}, False),
        ({"b": {"d": False}}, True),
        ({"b": None}, False),
        ({}, True),
    ],
)
def test_the_server_leaves_out_what_is_empty(wanted: dict[str, Any], fits: bool) -> None:
    assert js._fits({"a": 1, "b": {"c": 1, "x": 2}, "z": 9}, wanted) == fits


@pytest.mark.parametrize("filters", [[], ["a"], ["a", "b"]])
async def test_a_consumer_has_the_filters_that_are_wanted(
    bus: Bus, name: str, filters: list[str]
) -> None:
    wanted = [f"{name}.{word}" for word in filters]
    config = {"name": "c", "durable_name": "c", "filter_subjects": wanted}
    info = (await js.ensure_consumer(bus, name, config))["config"]
    single = info.get("filter_subject")
    assert (info.get("filter_subjects") or ([single] if single else [])) == wanted


async def test_a_consumer_is_brought_to_other_filters(bus: Bus, name: str) -> None:
    config: dict[str, Any] = {"name": "c", "durable_name": "c"}
    for words in (["a"], ["a", "b"], ["b"]):
        wanted = [f"{name}.{word}" for word in words]
        info = await js.ensure_consumer(bus, name, {**config, "filter_subjects": wanted})
    assert info["config"]["filter_subject"] == f"{name}.b"


async def test_a_configuration_that_is_handed_over_is_not_touched(bus: Bus, name: str) -> None:
    config = {"name": "c", "durable_name": "c", "filter_subjects": [f"{name}.a"]}
    await js.ensure_consumer(bus, name, config)
    assert config == {"name": "c", "durable_name": "c", "filter_subjects": [f"{name}.a"]}


async def test_a_stream_hears_what_live_subscribers_hear(bus: Bus, name: str) -> None:
    heard = Heard()
    await bus.subscribe(f"{name}.a", heard)
    await js.store(bus, f"{name}.a", b"1")
    assert await heard.reach(1) == [b"1"]
