"""A server that dies and comes back: what heals, what waits, what fails."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from tenantry.bus import Bus, Message
from tenantry.errors import NotAllowed, Rejection, Unavailable
from tenantry.operator import OperatorHome
from tests.unit.bus.station import Heard, Station, fresh, until


@pytest.fixture
async def bus(frail: Station) -> Bus:
    return await frail.connect()


async def lose(station: Station, *buses: Bus) -> None:
    """Kill the server and wait until these have noticed."""
    await station.kill()
    await until(lambda: not any(bus.connected for bus in buses))


async def find(station: Station, *buses: Bus) -> None:
    """Start the server and wait until these are back."""
    await station.start()
    await until(lambda: all(bus.connected for bus in buses))


# what heals


async def test_subscriptions_live_again(frail: Station, bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    await lose(frail, bus)
    await find(frail, bus)
    await bus.publish(subject, b"1")
    assert await heard.reach(1) == [b"1"]


async def test_calls_work_again(frail: Station, bus: Bus) -> None:
    subject = fresh()

    async def answer(message: Message) -> None:
        await bus.answer(message, b"yes")

    await bus.subscribe(subject, answer)
    await lose(frail, bus)
    await find(frail, bus)
    assert (await bus.call(subject)).data == b"yes"


async def test_it_heals_again_and_again(frail: Station, bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    for number in range(3):
        await lose(frail, bus)
        await find(frail, bus)
        await bus.publish(subject, b"%d" % number)
        await heard.reach(number + 1)
    assert heard.bodies == [b"0", b"1", b"2"]


async def test_who_listens_is_told_each_time(frail: Station, bus: Bus) -> None:
    told: list[bool] = []
    bus.on_reconnect(lambda: told.append(bus.connected))
    for _ in range(2):
        await lose(frail, bus)
        await find(frail, bus)
    await until(lambda: len(told) == 2)
    assert told == [True, True]


async def test_who_listens_no_more_is_not_told(frail: Station, bus: Bus) -> None:
    told, forgotten = Heard(), Heard()
    bus.on_reconnect(lambda: told.messages.append(None))  # type: ignore[arg-type]
    forget = bus.on_reconnect(lambda: forgotten.messages.append(None))  # type: ignore[arg-type]
    forget()
    forget()
    await lose(frail, bus)
    await find(frail, bus)
    await until(lambda: told.messages)
    assert forgotten.messages == []


async def test_a_subscription_stopped_meanwhile_stays_stopped(frail: Station, bus: Bus) -> None:
    subject = fresh()
    subscription = await bus.subscribe(subject, Heard())
    await lose(frail, bus)
    await subscription.stop()
    await find(frail, bus)
    with pytest.raises(Unavailable, match="nobody serves"):
        await bus.call(subject)


async def test_a_subscription_made_meanwhile_is_laid(frail: Station, bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await lose(frail, bus)
    subscribing = asyncio.create_task(bus.subscribe(subject, heard))
    await find(frail, bus)
    await subscribing
    await bus.publish(subject, b"1")
    assert await heard.reach(1) == [b"1"]


async def test_a_refused_subscription_does_not_keep_the_bus_away(frail: Station, bus: Bus) -> None:
    with pytest.raises(Rejection):
        await bus.subscribe("not a subject", Heard())
    await lose(frail, bus)
    await find(frail, bus)


async def test_what_could_not_be_sent_does_not_keep_the_bus_away(frail: Station, bus: Bus) -> None:
    """nats-py fails half way through closing when something waits to be written."""

    async def send() -> None:
        while bus.connected:
            await bus.publish("nobody.hears", b"x" * 1000)
            await asyncio.sleep(0)

    for _ in range(3):
        sending = [asyncio.create_task(send()) for _ in range(3)]
        await asyncio.sleep(0.02)
        await lose(frail, bus)
        await frail.start()
        await asyncio.wait(sending)
        await until(lambda: bus.connected)


async def test_a_damaged_credentials_file_is_no_end(frail: Station, tmp_path: Path) -> None:
    """It may be half written when the connection is lost."""
    path = tmp_path / "own.creds"
    shutil.copy(frail.home.creds_path("control"), path)
    whole = path.read_text()
    bus, other = await frail.connect(creds=path), await frail.connect()
    await lose(frail, bus, other)
    path.write_text(whole[: len(whole) // 2])
    await find(frail, other)
    path.write_text(whole)
    await until(lambda: bus.connected)


async def test_where_the_credentials_are_refused_nothing_waits(
    frail: Station, tmp_path: Path
) -> None:
    path, stranger = tmp_path / "own.creds", OperatorHome.create(tmp_path / "home")
    shutil.copy(frail.home.creds_path("control"), path)
    bus = await frail.connect(creds=path)
    await lose(frail, bus)
    shutil.copy(stranger.creds_path("control"), path)
    await frail.start()
    await until(lambda: bus._link._refused)
    began = time.monotonic()
    with pytest.raises(NotAllowed, match="NATS refuses the credentials"):
        await bus.publish(fresh())
    assert time.monotonic() - began < 1
    shutil.copy(frail.home.creds_path("control"), path)
    await until(lambda: bus.connected)
    await bus.publish(fresh())


# what fails


async def test_a_call_under_way_fails_at_once(frail: Station, bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    calls = [asyncio.create_task(bus.call(subject, timeout=30)) for _ in range(3)]
    await heard.reach(3)
    began = time.monotonic()
    await frail.kill()
    assert [type(why) for why in await asyncio.gather(*calls, return_exceptions=True)] == [
        Unavailable
    ] * 3
    assert time.monotonic() - began < 3


async def test_a_publish_waits_no_longer_than_its_patience(frail: Station) -> None:
    bus = await frail.connect(patience=0.1)
    await lose(frail, bus)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="NATS is away"):
        await bus.publish(fresh())
    assert 0.09 < time.monotonic() - began < 2


async def test_an_answer_that_nobody_can_get_is_given_up(frail: Station) -> None:
    bus = await frail.connect(patience=0.1)
    await lose(frail, bus)
    asked = Message("x", "_INBOX.x", b"")
    assert not await bus.answer(asked, b"late")


async def test_stopping_does_not_wait_for_a_connection_that_is_lost(
    frail: Station, bus: Bus
) -> None:
    """nats-py would wait for messages that it has dropped."""
    heard, subject, gate = Heard(), fresh(), asyncio.Event()

    async def slowly(message: Message) -> None:
        await heard(message)
        await gate.wait()

    subscription = await bus.subscribe(subject, slowly)
    for _ in range(5):
        await bus.publish(subject)
    await heard.reach(1)
    stopping = asyncio.create_task(subscription.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    await frail.kill()
    await asyncio.wait_for(stopping, 5)


# what waits


async def test_a_publish_waits_for_the_connection(frail: Station, bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    await lose(frail, bus)
    waiting = [asyncio.create_task(bus.publish(subject, b"%d" % number)) for number in range(5)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    await frail.start()
    await asyncio.gather(*waiting)
    assert sorted(await heard.reach(5)) == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_publish_at_the_very_moment_of_the_loss_waits_too(frail: Station, bus: Bus) -> None:
    """Whether it is lost or kept, it does not fail while there is patience left."""
    publishing = True

    async def publish() -> None:
        while publishing:
            await bus.publish("nobody.hears")
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(publish()) for _ in range(3)]
    for _ in range(2):
        await asyncio.sleep(0.05)
        await lose(frail, bus)
        await find(frail, bus)
    publishing = False
    await asyncio.gather(*tasks)


async def test_a_call_may_begin_while_the_connection_is_away(frail: Station, bus: Bus) -> None:
    subject = fresh()

    async def answer(message: Message) -> None:
        await bus.answer(message, b"yes")

    await bus.subscribe(subject, answer)
    await lose(frail, bus)
    call = asyncio.create_task(bus.call(subject, timeout=10))
    await asyncio.sleep(0.05)
    await frail.start()
    assert (await call).data == b"yes"


# closing


async def test_closing_ends_the_wait_of_the_others(frail: Station, bus: Bus) -> None:
    await lose(frail, bus)
    waiting = asyncio.create_task(bus.publish(fresh()))
    await asyncio.sleep(0.02)
    began = time.monotonic()
    await bus.close()
    with pytest.raises(Unavailable, match="is closed"):
        await waiting
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("noticed", [True, False])
async def test_closing_does_not_wait_for_a_server_that_died(
    frail: Station, bus: Bus, noticed: bool
) -> None:
    await bus.publish(fresh())
    if noticed:
        await lose(frail, bus)
    else:
        frail.backend.kill()  # without a chance to notice
    began = time.monotonic()
    await bus.close()
    assert time.monotonic() - began < 3


async def test_subscribing_does_not_wait_for_a_server_that_died(frail: Station, bus: Bus) -> None:
    frail.backend.kill()
    began = time.monotonic()
    await bus.subscribe(fresh(), Heard())
    assert time.monotonic() - began < 3


async def test_a_closed_bus_does_not_come_back(frail: Station, bus: Bus) -> None:
    other, told = await frail.connect(), []
    bus.on_reconnect(lambda: told.append("back"))
    await lose(frail, bus, other)
    await bus.close()
    await find(frail, other)
    assert not bus.connected
    assert told == []
