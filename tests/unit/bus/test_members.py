"""Who is alive, as heard on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from tenantry.bus import Bus
from tenantry.messages import Alive
from tenantry.runtime import members
from tenantry.runtime.members import Heartbeat, Members
from tests.unit.bus.station import Station, fresh, until


@pytest.fixture
def service() -> str:
    return fresh("service")


def life(service: str, instance: str = "i1", version: str = "1.0.0") -> Alive:
    return Alive(service=service, version=version, instance=instance)


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "BEAT", 0.05)
    monkeypatch.setattr(members, "SILENCE", 0.25)


Watching = Callable[..., Awaitable[Members]]
Beating = Callable[..., Awaitable[Heartbeat]]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def watch(stack: AsyncExitStack) -> Watching:
    """Starts members and stops them at the end."""

    async def start(bus: Bus, service: str = "*", **options: object) -> Members:
        found = Members(bus, service, **options)  # type: ignore[arg-type]
        await found.start()
        stack.push_async_callback(found.stop)
        return found

    return start


@pytest.fixture
def beat(stack: AsyncExitStack) -> Beating:
    """Starts heartbeats and stops them at the end."""

    async def start(bus: Bus, *lives: Alive) -> Heartbeat:
        beating = Heartbeat(bus, list(lives))
        await beating.start()
        stack.push_async_callback(beating.stop)
        return beating

    return start


# in memory


@pytest.mark.parametrize(
    ("said", "ended", "lives"),
    [
        (0, "", False),
        (1, "~1", False),
        (1, "", True),  # it has gone over to another connection before
        (2, "~1", True),
        (0, "~1", False),  # its heartbeat has not told of it yet
    ],
)
async def test_the_end_of_an_earlier_connection_is_not_that_of_the_instance(
    bus: Bus, service: str, said: int, ended: str, lives: bool
) -> None:
    found = Members(bus, service)
    found.hear(Alive(service=service, version="1.0.0", instance="i1", connection=said))
    found.disconnected(f"{service}/i1{ended}")
    assert bool(found.instances(service)) == lives


async def test_the_end_of_what_is_no_instance_is_none_of_theirs(bus: Bus, service: str) -> None:
    found = Members(bus, service)
    found.hear(life(service))
    for name in ("", "i1", "nats-cli", f"{service}/i2", f"{service}/i2~x"):
        found.disconnected(name)
    assert found.instances(service)


def test_at_first_nobody_lives(service: str) -> None:
    found = Members(Bus([]))
    assert (found.instances(service), found.versions(service)) == ({}, frozenset())


def test_who_is_heard_lives(service: str) -> None:
    found = Members(Bus([]))
    found.hear(life(service, "i1", "1.0.0"))
    found.hear(life(service, "i2", "2.0.0"))
    assert found.instances(service) == {"i1": "1.0.0", "i2": "2.0.0"}
    assert found.versions(service) == {"1.0.0", "2.0.0"}


def test_who_is_lost_lives_no_more(service: str) -> None:
    found = Members(Bus([]))
    found.hear(life(service, "i1"))
    found.hear(life(service, "i2"))
    found.lose("i1")
    assert set(found.instances(service)) == {"i2"}


def test_an_instance_may_be_lost_in_one_service_only() -> None:
    found = Members(Bus([]))
    found.hear(life("a"))
    found.hear(life("b"))
    found.lose("i1", "a")
    assert (found.instances("a"), set(found.instances("b"))) == ({}, {"i1"})


def test_who_listens_is_told_of_comings_and_goings_only() -> None:
    told: list[str] = []
    found = Members(Bus([]), changed=told.append)
    found.hear(life("a"))
    found.hear(life("a"))
    found.hear(life("a", "i2"))
    found.lose("i1")
    found.lose("i1")
    found.lose("nobody")
    assert told == ["a", "a", "a"]


# on the bus


async def test_an_instance_is_heard_at_its_start(
    station: Station, bus: Bus, service: str, watch: Watching, beat: Beating
) -> None:
    found = await watch(bus)
    await beat(await station.connect("service", service), life(service))
    await until(lambda: found.instances(service) == {"i1": "1.0.0"}, within=members.BEAT * 0.8)


async def test_who_comes_later_hears_it_at_the_next_beat(
    station: Station, bus: Bus, service: str, watch: Watching, beat: Beating
) -> None:
    await beat(await station.connect("service", service), life(service))
    found = await watch(bus)
    await until(lambda: found.instances(service), within=members.BEAT * 2)


async def test_an_instance_that_leaves_says_so(
    station: Station, bus: Bus, service: str, watch: Watching, beat: Beating
) -> None:
    found = await watch(bus)
    beating = await beat(await station.connect("service", service), life(service))
    await until(lambda: found.instances(service))
    await beating.stop()
    await until(lambda: not found.instances(service), within=members.SILENCE * 0.5)


async def test_one_service_is_watched_alone(
    station: Station, bus: Bus, watch: Watching, beat: Beating
) -> None:
    mine, other = fresh("service"), fresh("service")
    found = await watch(bus, mine)
    await beat(await station.connect("service", mine, other), life(other), life(mine))
    await until(lambda: found.instances(mine))
    assert found.instances(other) == {}


async def test_an_instance_that_is_silent_is_lost(
    quick_beats: None, bus: Bus, service: str, watch: Watching, beat: Beating
) -> None:
    """While others are heard: else it might be us who are deaf."""
    found = await watch(bus)
    await beat(bus, life(fresh("service")))
    found.hear(life(service))
    assert found.instances(service)
    await until(lambda: not found.instances(service), within=2)


async def test_an_instance_that_beats_stays(
    quick_beats: None, bus: Bus, service: str, watch: Watching, beat: Beating
) -> None:
    told: list[str] = []
    found = await watch(bus, changed=told.append)
    await beat(bus, life(service))
    await until(lambda: found.instances(service))
    await asyncio.sleep(members.SILENCE * 3)
    assert told.count(service) == 1


async def test_where_nobody_at_all_is_heard_nobody_is_lost(
    quick_beats: None, bus: Bus, service: str, watch: Watching
) -> None:
    found = await watch(bus)
    found.hear(life(service))
    await asyncio.sleep(members.SILENCE * 2.5)
    assert found.instances(service)


async def test_what_is_no_sign_of_life_does_no_harm(
    bus: Bus, service: str, watch: Watching, beat: Beating
) -> None:
    found = await watch(bus)
    for body in (b"", b"not json", b"\xff", b'{"service": 5}', b"[" * 5000):
        await bus.publish(members.alive_subject(service), body)
        await bus.publish(members.gone_subject(service), body)
    await beat(bus, life(service))
    await until(lambda: found.instances(service))


async def test_while_nats_is_away_nobody_is_lost_and_after_it_all_go_on(
    quick_beats: None, frail: Station, service: str, watch: Watching, beat: Beating
) -> None:
    told: list[str] = []
    bus, other = await frail.connect(), await frail.connect("service", service)
    found = await watch(bus, changed=told.append)
    beating = await beat(other, life(service))
    await until(lambda: found.instances(service))
    await frail.kill()
    await asyncio.sleep(members.SILENCE * 2)
    assert found.instances(service)
    await frail.start()
    await until(lambda: bus.connected and other.connected)
    await asyncio.sleep(members.SILENCE * 2)
    assert told == [service]
    await beating.stop()
    await until(lambda: not found.instances(service))
