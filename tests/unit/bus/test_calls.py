"""Asking and answering."""

from __future__ import annotations

import asyncio
import time

import pytest

from tenantry.bus import Bus, Message
from tenantry.errors import BadSubject, DeadlineExceeded, NotAllowed, TooLarge, Unavailable
from tests.unit.bus.station import Heard, Station, echo, fresh

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
    bus, began = await station.connect("service", "slow"), time.monotonic()
    with pytest.raises(NotAllowed, match="do not allow publish"):
        await bus.call(subject, timeout=20)
    assert time.monotonic() - began < 2


async def test_another_call_under_way_is_not_disturbed(station: Station, bus: Bus) -> None:
    other, subject, waiting = (
        await station.connect("service", "slow"),
        "request.acme.slow.x",
        Heard(),
    )
    await other.subscribe(subject, waiting)
    call = asyncio.create_task(other.call(subject))
    await waiting.reach(1)
    with pytest.raises(NotAllowed):
        await other.call("platform.tenants.show")
    await other.answer(waiting.messages[0], b"fine")
    assert (await call).data == b"fine"


async def test_after_a_refusal_the_connection_lives(station: Station) -> None:
    bus = await station.connect("service", "slow")
    with pytest.raises(NotAllowed):
        await bus.call("platform.tenants.show")
    assert bus.connected
    assert await bus.gather("$SRV.PING.slow", wait=0.05) == []


async def test_a_publish_that_is_not_allowed_reaches_nobody(station: Station, bus: Bus) -> None:
    heard, other = Heard(), await station.connect("service", "slow")
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
    asked = Message(subject, reply, b"")
    assert not await bus.answer(asked, b"forged")
    await bus.publish(heard_subject := reply or fresh(), b"allowed")
    if reply:
        assert await heard.reach(1) == [b"allowed"], heard_subject


async def test_an_answer_that_is_too_large_is_told_so_that_the_asker_hears_of_it(
    bus: Bus,
) -> None:
    asked = Message("x", "_INBOX.x", b"")
    with pytest.raises(TooLarge):
        await bus.answer(asked, b"x" * 9_000_000)
