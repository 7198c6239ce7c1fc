"""Getting a connection, or being told at once why not; and closing it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tenantry.bus import Bus
from tenantry.errors import ConnectionFailed, SetupError, Unavailable
from tenantry.local.server import free_port
from tenantry.operator import OperatorHome, creds
from tests.unit.bus.station import Heard, Station, fresh, open_to, until

CLOSED = "nats://127.0.0.1:1"


async def test_a_closed_port_is_told_promptly() -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1: .*refused|Connect call failed"):
        await Bus.connect(CLOSED)
    assert time.monotonic() - began < 2


async def test_the_hint_says_what_to_look_at() -> None:
    with pytest.raises(ConnectionFailed) as caught:
        await Bus.connect(CLOSED)
    assert "credentials" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["", " , ", "nats://127.0.0.1:port", "nats://no-such-host.invalid:4222", "nats://[::"]
)
async def test_what_leads_nowhere_is_told(url: str) -> None:
    with pytest.raises(ConnectionFailed):
        await Bus.connect(url)


async def test_of_several_servers_one_that_answers_will_do(station: Station) -> None:
    path = station.home.creds_path("control")
    for _ in range(5):  # they are tried in any order
        async with await Bus.connect([CLOSED, station.url], creds=path) as bus:
            assert bus.connected


async def test_servers_may_be_given_in_one_text(station: Station) -> None:
    path = station.home.creds_path("control")
    async with await Bus.connect(f" {CLOSED} , {station.url},", creds=path) as bus:
        assert bus.connected


async def test_all_servers_that_failed_are_named() -> None:
    other = f"nats://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionFailed) as caught:
        await Bus.connect([CLOSED, other])
    assert CLOSED in caught.value.message
    assert other in caught.value.message


async def test_without_credentials_there_is_no_way_in(station: Station) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match="Authorization"):
        await Bus.connect(station.url)
    assert time.monotonic() - began < 3


async def test_credentials_of_another_operator_are_refused_promptly(
    station: Station, tmp_path: Path
) -> None:
    stranger, began = OperatorHome.create(tmp_path / "home"), time.monotonic()
    with pytest.raises(ConnectionFailed, match="Authorization"):
        await Bus.connect(station.url, creds=stranger.creds_path("control"))
    assert time.monotonic() - began < 5  # the server itself looks for the account for 2


async def test_a_file_that_holds_no_credentials_is_told(station: Station, tmp_path: Path) -> None:
    (tmp_path / "x.creds").write_text("not credentials")
    with pytest.raises(SetupError, match="not a NATS credentials file"):
        await Bus.connect(station.url, creds=tmp_path / "x.creds")


async def test_a_file_that_is_not_there_is_told(station: Station, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no credentials file"):
        await Bus.connect(station.url, creds=tmp_path / "x.creds")


@pytest.mark.parametrize("role", [("control",), ("service", "orders"), ("router",)])
async def test_the_inbox_is_the_one_that_the_credentials_allow(
    station: Station, role: tuple[str, ...]
) -> None:
    bus = await station.connect(*role)
    key = creds.public_key_of(station.creds(*role).read_text())
    assert bus.inbox.startswith(f"_MESH.{key}.")


async def test_an_inbox_may_be_chosen(station: Station) -> None:
    bus = await station.connect(inbox=f"_INBOX.{fresh()}")
    with pytest.raises(Unavailable, match="nobody serves"):  # which came to that inbox
        await bus.call(fresh())


async def test_two_connections_have_two_inboxes(station: Station) -> None:
    assert (await station.connect()).inbox != (await station.connect()).inbox


@asynccontextmanager
async def something_else(greeting: bytes) -> AsyncIterator[str]:
    """A port where no NATS server listens but something else; returns its URL."""
    connections: list[asyncio.StreamWriter] = []

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(greeting)

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in connections:
            writer.close()
        await server.wait_closed()


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO {\r\n"])
async def test_something_else_on_the_port_does_not_hold_us_up(
    quick: Callable[[str, float], None], greeting: bytes
) -> None:
    quick("link._CONNECT", 0.2)
    async with something_else(greeting) as url:
        with pytest.raises(ConnectionFailed):
            await Bus.connect(url)


async def test_connecting_can_be_cancelled() -> None:
    async with something_else(b"") as url:
        connecting = asyncio.create_task(Bus.connect(url))
        await asyncio.sleep(0.05)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting


async def test_credentials_stay_out_of_what_a_bus_shows(station: Station) -> None:
    bus = await station.connect("service", "orders")
    text = station.creds("service", "orders").read_text()
    shown = repr(vars(bus)) + repr(vars(bus._link))
    assert not any(line in shown for line in text.splitlines() if len(line) > 50)


# closing


async def test_what_is_pending_is_sent_before_closing(station: Station, bus: Bus) -> None:
    heard, subject, other = Heard(), fresh(), await station.connect()
    await bus.subscribe(subject, heard)
    for number in range(100):
        await other.publish(subject, b"%d" % number)
    await other.close()
    assert len(await heard.reach(100)) == 100


async def test_a_closed_bus_publishes_nothing(bus: Bus) -> None:
    await bus.close()
    with pytest.raises(Unavailable, match="is closed"):
        await bus.publish(fresh())


async def test_a_closed_bus_asks_and_subscribes_nothing(bus: Bus) -> None:
    await bus.close()
    with pytest.raises(Unavailable, match="is closed"):
        await bus.call(fresh())
    with pytest.raises(Unavailable, match="is closed"):
        await bus.subscribe(fresh(), Heard())


async def test_a_call_under_way_fails_when_the_bus_is_closed(bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    call = asyncio.create_task(bus.call(subject, timeout=20))
    await heard.reach(1)
    await bus.close()
    with pytest.raises(Unavailable):
        await call


@pytest.mark.parametrize("turns", range(1, 8))
async def test_a_close_that_is_cancelled_twice_leaves_no_socket_open(
    station: Station, turns: int
) -> None:
    bus = await station.connect()
    closing = asyncio.create_task(bus.close())
    for pause in (1, turns):
        for _ in range(pause):
            await asyncio.sleep(0)
        closing.cancel()
    await asyncio.wait({closing})
    await until(lambda: not open_to(station.url))


async def test_closing_twice_does_no_harm(bus: Bus) -> None:
    await bus.close()
    await bus.close()
    assert not bus.connected


async def test_a_bus_is_closed_at_the_end_of_its_block(station: Station) -> None:
    async with await Bus.connect(station.url, creds=station.home.creds_path("control")) as bus:
        assert bus.connected
    assert not bus.connected
