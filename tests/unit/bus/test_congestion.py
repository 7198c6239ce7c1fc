"""A network that takes nothing in, and a callback that does not: neither fills our memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from chaos.proxy import Proxy
from tenantry.bus import Bus, Message
from tests.unit.bus.station import Heard, Station, fresh, until

MEGABYTE = b"x" * 1_000_000


@pytest.fixture
async def proxy(station: Station) -> AsyncIterator[Proxy]:
    proxy = await Proxy(int(station.url.rpartition(":")[2])).start()
    yield proxy
    await proxy.close()


@pytest.fixture
async def choked(station: Station, proxy: Proxy) -> AsyncIterator[Bus]:
    """A connection by way of the proxy."""
    creds = station.creds("root")
    bus = await Bus.connect(f"nats://127.0.0.1:{proxy.port}", creds=creds, name="choked")
    yield bus
    proxy.heal()
    await bus.close()


async def publish(bus: Bus, subject: str, count: int, sent: list[int]) -> None:
    for number in range(count):
        await bus.publish(subject, MEGABYTE)
        sent.append(number)


async def test_what_the_network_does_not_take_is_not_piled_up(choked: Bus, proxy: Proxy) -> None:
    proxy.pause()
    sent: list[int] = []
    publishing = asyncio.create_task(publish(choked, fresh(), 100, sent))
    await until(lambda: choked._link.alive().choked)  # type: ignore[union-attr]
    there = len(sent)
    await asyncio.sleep(0.1)
    assert len(sent) == there < 100
    publishing.cancel()


async def test_it_goes_on_where_it_stood_once_the_network_does(
    station: Station, choked: Bus, proxy: Proxy
) -> None:
    bus, heard, subject = await station.connect(), Heard(), fresh()
    await bus.subscribe(subject, heard)
    proxy.pause()
    publishing = asyncio.create_task(publish(choked, subject, 40, []))
    await until(lambda: choked._link.alive().choked)  # type: ignore[union-attr]
    proxy.heal()
    await publishing
    assert await heard.reach(40) == [MEGABYTE] * 40


async def test_nothing_is_taken_in_meanwhile(station: Station, choked: Bus, proxy: Proxy) -> None:
    bus, heard, subject = await station.connect(), list[bytes](), fresh()
    await choked.listen(subject, lambda message: heard.append(message.data))
    proxy.pause()
    publishing = asyncio.create_task(publish(choked, fresh(), 40, []))
    await until(lambda: choked._link.alive().choked)  # type: ignore[union-attr]
    await bus.publish(subject, b"1")
    proxy.heal()
    await publishing
    await until(lambda: heard == [b"1"])


async def test_a_callback_that_is_far_behind_misses_messages(bus: Bus) -> None:
    subject, go_on, got = fresh(), asyncio.Event(), list[bytes]()

    async def slow(message: Message) -> None:
        await go_on.wait()
        got.append(message.data)

    subscription = await bus.subscribe(subject, slow)
    (laid,) = subscription._laid.values()
    assert laid is not None
    laid._pending_bytes_limit = 25
    for number in range(5):
        await bus.publish(subject, b"%010d" % number)
    await bus.flush()
    go_on.set()
    await bus.publish(subject, b"last")
    await until(lambda: got and got[-1] == b"last")
    assert len(got) < 6
