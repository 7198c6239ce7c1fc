"""What is published: heard in its order, refused where NATS can't carry it."""

from __future__ import annotations

import asyncio

import pytest

from tenantry.bus import Bus, Message
from tenantry.bus.connection import HEADROOM
from tenantry.errors import BadMessage, BadSubject, TooLarge
from tests.unit.bus.station import Heard, Station, echo, fresh, until


async def test_what_is_published_is_heard(bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    await bus.publish(subject, b"hi", headers={"X": "y"}, reply="_INBOX.a")
    await heard.reach(1)
    (message,) = heard.messages
    assert (message.subject, message.data, message.reply) == (subject, b"hi", "_INBOX.a")
    assert message.headers == {"X": "y"}


async def test_messages_are_heard_in_their_order(bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    for number in range(1000):
        await bus.publish(subject, b"%d" % number)
    assert await heard.reach(1000) == [b"%d" % number for number in range(1000)]


async def test_what_is_flushed_has_reached_the_others(station: Station, bus: Bus) -> None:
    other, heard, subject = await station.connect(), Heard(), fresh()
    await other.subscribe(subject, heard)
    await bus.publish(subject, b"1")
    await bus.flush()
    await other.flush()
    assert await heard.reach(1) == [b"1"]


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB x 0", "a\tb", "a\n"])
async def test_what_is_no_subject_is_refused(bus: Bus, subject: str) -> None:
    with pytest.raises(BadSubject):
        await bus.publish(subject)


@pytest.mark.parametrize("reply", ["a b", "_INBOX.x\r\nPUB y 0"])
async def test_what_is_no_reply_is_refused(bus: Bus, reply: str) -> None:
    with pytest.raises(BadSubject):
        await bus.publish(fresh(), reply=reply)


async def test_what_is_larger_than_nats_takes_is_refused(bus: Bus) -> None:
    with pytest.raises(TooLarge, match="has 9000000 bytes"):
        await bus.publish(fresh(), b"x" * 9_000_000)


async def test_what_is_too_large_with_its_headers_is_refused(station: Station, bus: Bus) -> None:
    """nats-py counts only the body, and the server hangs up on what is over."""
    limit = bus.max_body + HEADROOM
    with pytest.raises(TooLarge, match="with its headers"):
        await bus.publish(fresh(), b"x" * (limit - 50), headers={"X": "y" * 100})
    assert bus.connected


async def test_a_header_that_utf_8_cannot_carry_is_refused(bus: Bus) -> None:
    with pytest.raises(BadMessage, match="UTF-8"):
        await bus.publish(fresh(), b"", headers={"X": "\udce9"})
    assert bus.connected


@pytest.mark.parametrize("name", ["X", "Content-Type"])
async def test_what_just_fits_with_its_headers_is_sent(bus: Bus, name: str) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    lines = len(b"NATS/1.0\r\n") + len(f"{name}: \u00e9\r\n".encode()) + len(b"\r\n")
    limit = bus.max_body + HEADROOM
    await bus.publish(subject, b"x" * (limit - lines), headers={name: "\u00e9"})
    await heard.reach(1)
    with pytest.raises(TooLarge):
        await bus.publish(subject, b"x" * (limit - lines + 1), headers={name: "\u00e9"})


@pytest.mark.parametrize(
    "block",
    [
        b"NATS/1.0 \xff\xff\xff\r\n\r\n",
        b"NATS/1.0 \xff\xff\xff \xfe\r\n\r\n",
        b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
        b"NATS/1.0\r\n\0\r\n\r\n",
        b"NATS/1.0\r\n: \r\n\r\n",
        b"NATS/1.0 200 \xff\r\nX: y\r\n\r\n",
        b"NATS/1.0\r\n\r\n",
    ],
)
async def test_headers_that_are_no_text_do_not_deafen_the_bus(
    station: Station, bus: Bus, block: bytes
) -> None:
    """Any client can send such ones; nats-py's own reading would end for good."""
    heard, subject, sender = Heard(), fresh(), await station.connect()
    await bus.subscribe(subject, heard)
    assert sender._link._client is not None
    command = f"HPUB {subject} {len(block)} {len(block) + 2}\r\n".encode()
    await sender._link._client._send_command(command + block + b"hi\r\n")
    await sender.publish(subject, b"next")
    assert (await heard.reach(2))[-1] == b"next"


async def test_a_connection_that_has_stopped_to_read_is_made_anew(bus: Bus) -> None:
    subject, deaf = await echo(bus), bus._link._client
    assert deaf is not None
    assert deaf._reading_task is not None
    deaf._reading_task.cancel()
    await until(lambda: bus.connected and bus._link._client is not deaf)
    assert (await bus.call(subject, b"hi")).data == b"hi"


async def test_a_header_cannot_bring_in_another(bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    await bus.publish(subject, headers={"X": "a\r\nTenant-Context: forged"})
    await heard.reach(1)
    assert set(heard.messages[0].headers or {}) == {"X"}


@pytest.mark.parametrize("name", ["a b", "a:b", "a/b", "(a)", "\u00e9", "a\r\nb"])
async def test_what_is_no_name_of_a_header_is_told(bus: Bus, name: str) -> None:
    with pytest.raises(BadMessage, match="NATS refuses the header"):
        await bus.publish(fresh(), headers={name: "x"})


async def test_a_header_may_be_in_any_language(bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    await bus.publish(subject, headers={"X": "\u00e9\u4e16"})
    await heard.reach(1)
    assert heard.messages[0].headers == {"X": "\u00e9\u4e16"}


async def test_a_flush_that_is_cancelled_does_not_deafen_the_bus(bus: Bus) -> None:
    """The PONG for it would end nats-py's read loop."""
    subject = await echo(bus)
    for _ in range(20):
        flushing = asyncio.create_task(bus.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.wait({flushing})
    assert (await bus.call(subject, b"still here")).data == b"still here"


async def test_what_may_wait_arrives_although_nothing_follows(bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    assert bus.post(subject, b"1", lazy=True)
    assert await heard.reach(1) == [b"1"]


async def test_what_may_wait_keeps_its_place(bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    for number in range(20):
        bus.post(subject, b"%d" % number, lazy=number % 3 > 0)
    assert await heard.reach(20) == [b"%d" % number for number in range(20)]


async def test_what_may_wait_is_sent_before_the_end(station: Station, bus: Bus) -> None:
    heard, subject, other = Heard(), fresh(), await station.connect()
    await bus.subscribe(subject, heard)
    other.post(subject, b"1", lazy=True)
    await other.close()
    assert await heard.reach(1) == [b"1"]


async def test_a_listener_that_fails_ends_nothing(bus: Bus) -> None:
    heard, subject = list[bytes](), fresh()

    def listen(message: Message) -> None:
        heard.append(message.data)
        raise RuntimeError("no")

    await bus.listen(subject, listen)
    await bus.publish(subject, b"1")
    await bus.publish(subject, b"2")
    await until(lambda: heard == [b"1", b"2"])
