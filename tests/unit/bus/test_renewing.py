"""Other credentials in the file: a connection goes over to them, and nothing is missed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.proxy import Proxy
from tenantry.bus import Bus, Message
from tenantry.errors import ConnectionFailed, Unavailable
from tenantry.operator import OperatorHome
from tests.mesh import root_creds
from tests.unit.bus.station import Heard, Station, echo, fresh, open_to, until


@pytest.fixture
def creds(station: Station, tmp_path: Path) -> Path:
    return root_creds(station.home, tmp_path)


@pytest.fixture
async def renewed(station: Station, creds: Path) -> Bus:
    """A connection with credentials of its own file."""
    return await station.connect(creds=creds)


def issue(station: Station, path: Path) -> None:
    folder = path.parent / fresh("issued")
    folder.mkdir()
    path.write_text(root_creds(station.home, folder).read_text())


async def test_a_new_file_is_taken_up_by_itself(
    station: Station, creds: Path, renewed: Bus
) -> None:
    before = renewed.inbox
    issue(station, creds)
    await until(lambda: renewed.renewals == 1)
    assert renewed.inbox.rpartition(".")[0] != before.rpartition(".")[0]
    assert (await renewed.call(await echo(renewed), b"x")).data == b"x"


async def test_a_file_that_says_the_same_changes_nothing(creds: Path, renewed: Bus) -> None:
    creds.write_text(creds.read_text())
    await asyncio.sleep(1.5)
    assert renewed.renewals == 0


async def test_what_is_under_way_is_answered(station: Station, creds: Path, renewed: Bus) -> None:
    other, subject, asked = await station.connect(), fresh("slow"), asyncio.Event()
    go = asyncio.Event()

    async def answer(message: Message) -> None:
        asked.set()
        await go.wait()
        await other.answer(message, b"late")

    await other.subscribe(subject, answer)
    call = asyncio.create_task(renewed.call(subject, b""))
    await asked.wait()
    issue(station, creds)
    await renewed.renew()
    go.set()
    assert (await call).data == b"late"


async def test_what_is_asked_meanwhile_is_answered(station: Station, renewed: Bus) -> None:
    far = await Proxy(int(station.url.rpartition(":")[2]), latency=0.01).start()
    renewed._link._servers = [f"nats://127.0.0.1:{far.port}"]
    renewing = asyncio.create_task(renewed.renew())
    while not renewing.done():
        await renewed.call("$JS.API.INFO", timeout=2.0)
    await renewing
    await renewed.close()
    await far.close()


async def test_a_queue_group_of_one_misses_nothing(
    station: Station, creds: Path, renewed: Bus
) -> None:
    subject, other = fresh("work"), await station.connect()
    answered = 0

    async def answer(message: Message) -> None:
        await renewed.answer(message, message.data)

    async def ask() -> None:
        nonlocal answered
        while True:
            await other.call(subject, b"x", timeout=5.0)
            answered += 1

    await renewed.subscribe(subject, answer, queue="workers")
    asking = [asyncio.create_task(ask()) for _ in range(20)]
    for _ in range(5):
        issue(station, creds)
        enough = answered + 500
        await renewed.renew()
        await until(lambda enough=enough: answered > enough)
    assert not [task.exception() for task in asking if task.done()]
    for task in asking:
        task.cancel()


async def test_who_subscribes_meanwhile_is_heard_afterwards(
    station: Station, creds: Path, renewed: Bus, quick: Callable[[str, float], None]
) -> None:
    quick("link._LINGER", 0.0)
    old = renewed._link.alive()
    assert old is not None
    issue(station, creds)
    renewing, subjects = asyncio.create_task(renewed.renew()), []
    while not renewing.done():
        subjects.append(await echo(renewed))
    await renewing
    await until(lambda: old.is_closed)
    for subject in subjects:
        assert (await renewed.call(subject, b"x")).data == b"x"


async def test_a_renewal_that_is_cancelled_leaves_no_socket_open(
    station: Station, creds: Path
) -> None:
    async with await Bus.connect(station.url, creds=creds) as bus:
        renewing = asyncio.create_task(bus.renew())
        while not bus.renewals:  # the moment when the new connection has just taken over
            await asyncio.sleep(0)
        renewing.cancel()
        await asyncio.wait({renewing})
    await until(lambda: not open_to(station.url))


async def test_what_is_stopped_after_a_renewal_that_was_cancelled_hears_nothing(
    renewed: Bus,
) -> None:
    subject, heard = fresh(), Heard()
    subscription = await renewed.subscribe(subject, heard)
    renewing = asyncio.create_task(renewed.renew())
    while len(subscription._laid) < 2:  # on the new connection, too
        await asyncio.sleep(0)
    renewing.cancel()
    await asyncio.wait({renewing})
    assert not renewed.renewals
    await subscription.stop()
    with pytest.raises(Unavailable, match="nobody serves"):
        await renewed.call(subject)


async def test_what_is_published_is_heard_once_and_in_order(
    station: Station, creds: Path, renewed: Bus
) -> None:
    subject, other = fresh("told"), await station.connect()
    heard = Heard()
    await other.subscribe(subject, heard)
    for number in range(1000):
        renewed.post(subject, b"%d" % number)
        if number == 500:
            issue(station, creds)
            await renewed.renew()
    assert await heard.reach(1000) == [b"%d" % number for number in range(1000)]


async def test_credentials_that_are_refused_leave_it_as_it_is(
    creds: Path, renewed: Bus, tmp_path: Path
) -> None:
    stranger = OperatorHome.create(tmp_path / "stranger")
    shutil.copy(stranger.creds_path("control"), creds)
    with pytest.raises(ConnectionFailed):
        await renewed.renew()
    assert (await renewed.call(await echo(renewed), b"x")).data == b"x"


async def test_after_refused_ones_good_credentials_are_taken_up(
    station: Station, creds: Path, renewed: Bus
) -> None:
    creds.write_text("no credentials")
    with pytest.raises(ConnectionFailed):
        await renewed.renew()
    issue(station, creds)
    await until(lambda: renewed.renewals == 1)


async def test_after_a_loss_the_new_file_counts_too(frail: Station, tmp_path: Path) -> None:
    path = tmp_path / "control.creds"
    shutil.copy(frail.home.creds_path("control"), path)
    bus = await frail.connect(creds=path)
    subject = await echo(bus)
    await frail.kill()
    issue(frail, path)
    await frail.start()
    await until(lambda: bus.connected)
    assert (await bus.call(subject, b"x")).data == b"x"
