"""Subscribing, and stopping to."""

from __future__ import annotations

import asyncio

import pytest

from tenantry.bus import Bus, Message, Subscription
from tenantry.errors import BadSubject, Unavailable
from tests.unit.bus.station import Heard, Station, fresh, until


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
