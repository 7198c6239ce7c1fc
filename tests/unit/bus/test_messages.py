"""Publishing, asking, answering, subscribing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tenantry.bus import Bus, Message, Subscription
from tenantry.errors import (
    BadMessage,
    BadSubject,
    DeadlineExceeded,
    NotAllowed,
    TooLarge,
    Unavailable,
)
from tests.unit.bus.station import Heard, Station, fresh, until


async def echo(bus: Bus) -> str:
    """Something that answers with what it is asked; returns its subject."""
    subject = fresh("echo")

    async def answer(message: Message) -> None:
        await bus.answer(message, message.data)

    await bus.subscribe(subject, answer)
    return subject


# publish


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
    limit = bus.max_body + 4096
    with pytest.raises(TooLarge, match="with its headers"):
        await bus.publish(fresh(), b"x" * (limit - 50), headers={"X": "y" * 100})
    assert bus.connected


@pytest.mark.parametrize("name", ["X", "Content-Type"])
async def test_what_just_fits_with_its_headers_is_sent(bus: Bus, name: str) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    lines = len(b"NATS/1.0\r\n") + len(f"{name}: \u00e9\r\n".encode()) + len(b"\r\n")
    limit = bus.max_body + 4096
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


# call


async def test_a_call_gets_its_answer(bus: Bus) -> None:
    answer = await bus.call(await echo(bus), b"hi")
    assert answer.data == b"hi"


async def test_each_of_many_calls_gets_its_own_answer(station: Station, bus: Bus) -> None:
    """They are answered in the opposite order."""
    other, subject, waiting = await station.connect(), fresh(), Heard()
    await other.subscribe(subject, waiting)
    calls = [asyncio.create_task(bus.call(subject, b"%d" % number)) for number in range(200)]
    await waiting.reach(200)
    for message in reversed(waiting.messages):
        await other.answer(message, message.data)
    answers = await asyncio.gather(*calls)
    assert [answer.data for answer in answers] == [b"%d" % number for number in range(200)]


async def test_where_nobody_serves_a_call_fails_at_once(bus: Bus) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="nobody serves"):
        await bus.call(fresh(), timeout=20)
    assert time.monotonic() - began < 2


async def test_where_nobody_answers_a_call_ends_at_its_time(bus: Bus) -> None:
    subject = fresh()
    await bus.subscribe(subject, Heard())
    with pytest.raises(DeadlineExceeded, match=rf"no answer on {subject} within 0\.05 s"):
        await bus.call(subject, timeout=0.05)


async def test_an_answer_that_comes_too_late_is_dropped(bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    with pytest.raises(DeadlineExceeded):
        await bus.call(subject, timeout=0.05)
    await bus.answer(heard.messages[0], b"late")
    assert (await bus.call(await echo(bus), b"next")).data == b"next"


async def test_only_the_first_answer_counts(bus: Bus) -> None:
    subject = fresh()

    async def twice(message: Message) -> None:
        await bus.answer(message, b"first")
        await bus.answer(message, b"second")

    await bus.subscribe(subject, twice)
    assert [(await bus.call(subject)).data for _ in range(20)] == [b"first"] * 20


async def test_a_call_leaves_nothing_behind(bus: Bus) -> None:
    quiet = fresh()
    await bus.subscribe(quiet, Heard())
    await bus.call(await echo(bus))
    with pytest.raises(Unavailable):
        await bus.call(fresh())
    with pytest.raises(DeadlineExceeded):
        await bus.call(quiet, timeout=0.02)
    with pytest.raises(BadSubject):
        await bus.call("a b")
    await bus.gather(quiet, wait=0.01)
    await asyncio.sleep(0)
    assert not bus._calls


async def test_an_empty_answer_is_an_answer(bus: Bus) -> None:
    assert (await bus.call(await echo(bus), b"")).data == b""


# begin


async def test_several_calls_are_under_way_at_once(bus: Bus) -> None:
    subject = await echo(bus)
    futures = [await bus.begin(subject, b"%d" % number) for number in range(50)]
    assert [(await future).data for future in futures] == [b"%d" % number for number in range(50)]


async def test_one_that_nobody_serves_fails_by_itself(bus: Bus) -> None:
    served, unserved = await bus.begin(await echo(bus), b"hi"), await bus.begin(fresh())
    with pytest.raises(Unavailable):
        await unserved
    assert (await served).data == b"hi"


async def test_one_that_cannot_be_sent_raises_at_once(bus: Bus) -> None:
    with pytest.raises(TooLarge):
        await bus.begin(fresh(), b"x" * 9_000_000)


# gather


async def test_all_that_listen_are_heard(station: Station, bus: Bus) -> None:
    subject = fresh()

    async def answer(message: Message) -> None:
        await bus.answer(message, b"me")

    for _ in range(3):
        await bus.subscribe(subject, answer)
    assert [found.data for found in await bus.gather(subject, wait=0.1)] == [b"me"] * 3


async def test_where_nobody_listens_nothing_is_gathered(bus: Bus) -> None:
    assert await bus.gather(fresh(), wait=0.05) == []


# permissions


@pytest.mark.parametrize(
    "subject", ["platform.tenants.show", "$JS.API.STREAM.DELETE.JOURNAL", "$KV.tenants.acme"]
)
async def test_a_call_that_the_credentials_do_not_allow_fails_at_once(
    station: Station, subject: str
) -> None:
    bus, began = await station.connect("service"), time.monotonic()
    with pytest.raises(NotAllowed, match="do not allow publish"):
        await bus.call(subject, timeout=20)
    assert time.monotonic() - began < 2


async def test_another_call_under_way_is_not_disturbed(station: Station, bus: Bus) -> None:
    other, subject, waiting = await station.connect("service"), "request.acme.slow.x", Heard()
    await other.subscribe(subject, waiting)
    call = asyncio.create_task(other.call(subject))
    await waiting.reach(1)
    with pytest.raises(NotAllowed):
        await other.call("platform.tenants.show")
    await other.answer(waiting.messages[0], b"fine")
    assert (await call).data == b"fine"


async def test_after_a_refusal_the_connection_lives(station: Station) -> None:
    bus = await station.connect("service")
    with pytest.raises(NotAllowed):
        await bus.call("platform.tenants.show")
    assert bus.connected
    assert await bus.gather("$SRV.PING", wait=0.05) == []


async def test_a_publish_that_is_not_allowed_reaches_nobody(station: Station, bus: Bus) -> None:
    heard, other = Heard(), await station.connect("service")
    await bus.subscribe("platform.tenants.>", heard)
    await other.publish("platform.tenants.delete", b"x")
    await other.flush()
    await bus.publish("platform.tenants.probe", b"allowed")
    assert await heard.reach(1) == [b"allowed"]


# answers


@pytest.mark.parametrize("prefix", ["_INBOX.acme.x", "_MESH.abc.x"])
async def test_an_inbox_is_answered(bus: Bus, prefix: str) -> None:
    heard, asked, subject = Heard(), Heard(), fresh()
    await bus.subscribe(f"{prefix}.{subject}", heard)
    await bus.subscribe(subject, asked)
    await bus.publish(subject, reply=f"{prefix}.{subject}")
    await asked.reach(1)
    assert await bus.answer(asked.messages[0], b"yes", headers={"X": "y"})
    assert await heard.reach(1) == [b"yes"]


@pytest.mark.parametrize(
    "reply", ["", "answered.x", "x._INBOX.y", "_inbox.x", "_INBOXES.x", "$KV.keys.x", "_R_.abc"]
)
async def test_what_is_no_inbox_is_not_answered(bus: Bus, reply: str) -> None:
    """The server checks nobody's permissions for a reply: answered blindly, this would write."""
    heard, subject = Heard(), fresh()
    await bus.subscribe(reply or fresh(), heard)
    asked = Message(_client=None, subject=subject, reply=reply)  # type: ignore[arg-type]
    assert not await bus.answer(asked, b"forged")
    await bus.publish(heard_subject := reply or fresh(), b"allowed")
    if reply:
        assert await heard.reach(1) == [b"allowed"], heard_subject


async def test_an_answer_that_is_too_large_is_told_so_that_the_asker_hears_of_it(
    bus: Bus,
) -> None:
    asked = Message(_client=None, subject="x", reply="_INBOX.x")  # type: ignore[arg-type]
    with pytest.raises(TooLarge):
        await bus.answer(asked, b"x" * 9_000_000)


# subscribe


@pytest.mark.parametrize("subject", ["", "a b", "a..b", "a.>.b", "a\n", "x*"])
async def test_what_cannot_be_subscribed_is_refused_and_forgotten(bus: Bus, subject: str) -> None:
    known = len(bus._subscriptions)
    with pytest.raises(BadSubject):
        await bus.subscribe(subject, Heard())
    assert len(bus._subscriptions) == known


async def test_of_a_queue_group_one_hears_each_message(station: Station, bus: Bus) -> None:
    subject, members = fresh(), [Heard(), Heard(), Heard()]
    for heard in members:
        await (await station.connect()).subscribe(subject, heard, queue="group")
    for number in range(60):
        await bus.publish(subject, b"%d" % number)
    await until(lambda: sum(len(heard.messages) for heard in members) == 60)
    await asyncio.sleep(0.05)
    assert sorted(int(body) for heard in members for body in heard.bodies) == list(range(60))


class Failing(Heard):
    """A callback that keeps what it hears and then raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    async def __call__(self, message: Message) -> None:
        await super().__call__(message)
        raise self._error


@pytest.mark.parametrize(
    "error", [ValueError("broken"), Unavailable("away"), TimeoutError(), asyncio.CancelledError()]
)
async def test_a_callback_that_raises_hears_the_next_message(
    bus: Bus, error: BaseException
) -> None:
    heard, subject = Failing(error), fresh()
    await bus.subscribe(subject, heard)
    for body in (b"1", b"2", b"3"):
        await bus.publish(subject, body)
    assert await heard.reach(3) == [b"1", b"2", b"3"]


async def test_a_callback_that_cancels_itself_stays_in_its_queue_group(bus: Bus) -> None:
    heard, subject = Failing(asyncio.CancelledError()), fresh()
    await bus.subscribe(subject, heard, queue="group")
    for _ in range(5):
        await bus.publish(subject)
    assert len(await heard.reach(5)) == 5


async def test_callbacks_run_one_after_another(bus: Bus) -> None:
    told, subject = [], fresh()

    async def slowly(message: Message) -> None:
        told.append(b"begin " + message.data)
        await asyncio.sleep(0.01)
        told.append(b"end " + message.data)

    await bus.subscribe(subject, slowly)
    await bus.publish(subject, b"1")
    await bus.publish(subject, b"2")
    await until(lambda: len(told) == 4)
    assert told == [b"begin 1", b"end 1", b"begin 2", b"end 2"]


async def test_stopping_first_handles_what_has_come(bus: Bus) -> None:
    handled, subject = [], fresh()

    async def slowly(message: Message) -> None:
        await asyncio.sleep(0.01)
        handled.append(message.data)

    subscription = await bus.subscribe(subject, slowly)
    for number in range(10):
        await bus.publish(subject, b"%d" % number)
    await bus.flush()
    await subscription.stop()
    assert handled == [b"%d" % number for number in range(10)]


async def test_after_stopping_nothing_is_heard(bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    subscription = await bus.subscribe(subject, heard)
    await subscription.stop()
    with pytest.raises(Unavailable, match="nobody serves"):
        await bus.call(subject)
    assert heard.messages == []


async def test_stopping_twice_does_no_harm(bus: Bus) -> None:
    subscription = await bus.subscribe(fresh(), Heard())
    await subscription.stop()
    await subscription.stop()


async def test_one_that_was_stopped_is_not_laid_again(bus: Bus) -> None:
    subject = fresh()
    subscription = await bus.subscribe(subject, Heard())
    await subscription.stop()
    assert bus._link._client is not None
    await subscription.lay(bus._link._client)
    with pytest.raises(Unavailable, match="nobody serves"):
        await bus.call(subject)


async def test_one_that_is_stopped_while_it_is_laid_hears_nothing(bus: Bus) -> None:
    """As happens to one that ends while a lost connection is made anew."""
    subject, heard = fresh(), Heard()
    subscription = Subscription(bus, subject, "", heard)
    assert bus._link._client is not None
    laying = asyncio.create_task(subscription.lay(bus._link._client))
    await asyncio.sleep(0)
    await subscription.stop()
    await laying
    with pytest.raises(Unavailable, match="nobody serves"):
        await bus.call(subject)


async def test_two_subscriptions_of_one_subject_are_two(bus: Bus) -> None:
    subject, first, second = fresh(), Heard(), Heard()
    stopped = await bus.subscribe(subject, first)
    await bus.subscribe(subject, second)
    await stopped.stop()
    await bus.publish(subject, b"1")
    assert await second.reach(1) == [b"1"]
    assert first.messages == []


async def test_credentials_stay_out_of_what_a_bus_shows(station: Station) -> None:
    bus = await station.connect("service")
    text = Path(station.home.creds_path("service")).read_text()
    shown = repr(vars(bus)) + repr(vars(bus._link))
    assert not any(line in shown for line in text.splitlines() if len(line) > 50)
