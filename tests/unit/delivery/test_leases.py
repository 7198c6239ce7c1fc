"""Who is alive: no instance is taken for dead that may still act, and who is dead is soon known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from chaos.proxy import Proxy
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.delivery import timing
from tenantry.errors import NotFound, Unavailable
from tenantry.messages.checkpoints import Lease
from tenantry.streams import bucket_config
from tests.unit.bus.station import Station, until
from tests.unit.delivery.instances import Instance, Instances, instances

Update = Callable[[str, Lease, int], Any]


def patch(instance: Instance, update: Callable[[Update, str, Lease, int], Any]) -> None:
    """Let `update(real, key, lease, revision)` write the instance's renewals."""
    bucket: Any = instance.leases._bucket
    real = bucket.update

    async def patched(key: str, lease: Lease, revision: int) -> int:
        return int(await update(real, key, lease, revision))

    bucket.update = patched


# --- one's own lease ------------------------------------------------------------------------------


async def test_who_has_started_holds_a_lease(crowd: Instances) -> None:
    one = await crowd.start()
    assert await crowd.there(one.id)
    assert await one.leases.exists(one.id)
    assert one.leases.valid


async def test_a_lease_is_renewed(crowd: Instances) -> None:
    one = await crowd.start()
    before = await crowd.bucket.get(crowd.key(one.id))
    await one.renews()
    after = await crowd.bucket.get(crowd.key(one.id))
    assert before is not None
    assert after is not None
    assert after.value.renewed > before.value.renewed


async def test_who_stops_gives_its_lease_up(crowd: Instances) -> None:
    one = await crowd.start()
    name = one.id
    await one.leases.stop()
    assert not await crowd.there(name)
    assert not await one.leases.exists(name)
    assert not one.leases.valid
    assert one.leases.instances() == {}


async def test_a_lease_counts_from_when_its_renewal_was_sent(crowd: Instances) -> None:
    one = await crowd.start()
    go, renewed, sent = asyncio.Event(), len(one.renewed), list[float]()

    async def answered_late(real: Update, key: str, lease: Lease, revision: int) -> int:
        sent.append(time.monotonic())
        stored = await real(key, lease, revision)
        await go.wait()
        return int(stored)

    patch(one, answered_late)
    await until(lambda: sent and time.monotonic() > sent[0] + timing.LEASE)
    go.set()
    await until(lambda: len(one.renewed) > renewed)
    assert not one.renewed[renewed]


async def test_a_lease_is_valid_again_once_a_renewal_is_answered_in_time(crowd: Instances) -> None:
    one = await crowd.start()
    name, asked = one.id, 0

    async def silent_for_a_while(real: Update, key: str, lease: Lease, revision: int) -> int:
        nonlocal asked
        asked += 1
        if one.leases.valid or asked < 3:
            raise Unavailable("as the test wants it")
        return int(await real(key, lease, revision))

    patch(one, silent_for_a_while)
    await until(lambda: not one.leases.valid)
    await until(lambda: one.leases.valid)
    assert one.id == name
    assert not one.fenced


async def test_a_renewal_whose_answer_got_lost_is_no_fence(crowd: Instances) -> None:
    one = await crowd.start()
    name, lost = one.id, False

    async def lost_once(real: Update, key: str, lease: Lease, revision: int) -> int:
        nonlocal lost
        stored = await real(key, lease, revision)
        if not lost:
            lost = True
            raise Unavailable("as the test wants it")
        return int(stored)

    patch(one, lost_once)
    await until(lambda: lost)
    await one.renews(2)
    assert one.id == name
    assert not one.fenced


async def test_a_first_renewal_whose_answer_got_lost_leaves_no_second_lease(
    crowd: Instances,
) -> None:
    one, asked = crowd.make(), list[str]()

    async def lost_once(real: Update, key: str, lease: Lease, revision: int) -> int:
        asked.append(key)
        stored = await real(key, lease, revision)
        if len(asked) == 1:
            raise Unavailable("as the test wants it")
        return int(stored)

    patch(one, lost_once)
    await one.leases.start()
    assert set(asked) == {crowd.key(one.id)}
    await one.leases.stop()


async def test_a_lease_that_was_fenced_before_it_was_held_is_given_up(crowd: Instances) -> None:
    one, asked = crowd.make(), list[str]()

    async def fenced_first(real: Update, key: str, lease: Lease, revision: int) -> int:
        asked.append(key)
        stored = await real(key, lease, revision)
        if len(asked) == 1:
            await crowd.bucket.delete(key)
            raise Unavailable("as the test wants it")
        return int(stored)

    patch(one, fenced_first)
    await one.leases.start()
    assert crowd.key(one.id) != asked[0]
    assert not one.fenced
    await one.leases.stop()


async def test_a_lease_goes_on_where_the_bucket_has_lost_its_last_renewals(
    crowd: Instances,
) -> None:
    one = await crowd.start()
    name, ahead = one.id, False

    async def ahead_once(real: Update, key: str, lease: Lease, revision: int) -> int:
        nonlocal ahead
        stored = int(await real(key, lease, revision))
        if not ahead:
            ahead = True
            return stored + 1000  # which a power cut then took away
        return stored

    patch(one, ahead_once)
    await until(lambda: ahead)
    await one.renews(3)
    assert one.id == name
    assert not one.fenced


async def test_who_is_fenced_hears_of_it_and_goes_on_with_a_new_lease(crowd: Instances) -> None:
    one = await crowd.start()
    former = one.id
    await crowd.bucket.delete(crowd.key(former))
    await until(lambda: one.fenced == 1)
    await until(lambda: one.id not in ("", former))
    assert one.leases.valid
    assert not await crowd.there(former)
    assert await crowd.there(one.id)


async def test_who_is_fenced_is_not_valid_when_it_hears_of_it(crowd: Instances) -> None:
    one, valid = await crowd.start(), list[bool]()
    one.leases._fenced = lambda: valid.append(one.leases.valid)
    await crowd.bucket.delete(crowd.key(one.id))
    await until(lambda: valid)
    assert valid == [False]


async def test_it_waits_for_the_bucket(
    bus: Bus, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantry.delivery.leases._PATIENCE", 0.0)
    await js.api(bus, "STREAM.DELETE.KV_leases", {})
    one = Instance(bus, "nobody")
    with pytest.raises(NotFound, match="control plane"):
        await one.leases.start()
    await one.leases.stop()
    await js.ensure_stream(bus, bucket_config("leases"))


# --- the others -----------------------------------------------------------------------------------


async def test_instances_know_each_other(crowd: Instances) -> None:
    one, other = await crowd.start(), await crowd.start(version="1.1.0")
    await until(lambda: one.knows(other) and other.knows(one))
    assert one.leases.instances()[other.id] == "1.1.0"


async def test_who_has_started_knows_those_that_are_there(crowd: Instances) -> None:
    one = await crowd.start()
    other = await crowd.start()
    assert other.knows(one)


async def test_an_instance_that_stops_is_forgotten(crowd: Instances) -> None:
    one, other = await crowd.start(), await crowd.start()
    await until(lambda: one.knows(other))
    changed = one.changed
    await other.leases.stop()
    await until(one.knows)
    assert one.changed > changed


async def test_a_silent_instance_is_fenced(crowd: Instances) -> None:
    await crowd.lease("silent-1")
    one = await crowd.start()
    assert "silent-1" in one.leases.instances()
    await until(one.knows)
    assert not await crowd.there("silent-1")


async def test_an_instance_that_renews_is_not_fenced(crowd: Instances) -> None:
    one, other = await crowd.start(), await crowd.start()
    silent = await crowd.lease("silent-1")
    assert silent
    await until(lambda: one.knows(other) and other.knows(one))  # they know the silent one no more
    assert not one.fenced
    assert not other.fenced


async def test_an_instance_whose_renewals_are_not_heard_is_not_fenced(crowd: Instances) -> None:
    other, one = await crowd.start(), await crowd.start()
    await until(lambda: one.knows(other))
    assert one.leases._subscription is not None
    await one.leases._subscription.stop()
    looks, read = 0, one.leases._bucket.read

    async def counted(key: str) -> Any:
        nonlocal looks
        looks += key == crowd.key(other.id)
        return await read(key)

    one.leases._bucket.read = counted  # type: ignore[method-assign]
    await until(lambda: looks >= 2)
    await other.renews()
    assert not other.fenced
    assert one.knows(other)


async def test_who_has_no_valid_lease_fences_nobody(crowd: Instances) -> None:
    one = await crowd.start()

    async def refused(_real: Update, _key: str, _lease: Lease, _revision: int) -> int:
        raise Unavailable("as the test wants it")

    patch(one, refused)
    await until(lambda: not one.leases.valid)
    await crowd.lease("silent-1")
    await until(lambda: "silent-1" in one.leases.instances())
    heard = one.leases._heard["silent-1"]
    heard.at -= 2 * timing.TAKEOVER
    turns = asyncio.create_task(asyncio.sleep(10 * timing.WATCH))
    await turns
    assert await crowd.there("silent-1")


async def test_a_refused_renewal_that_was_heard_only_puts_the_fence_off(crowd: Instances) -> None:
    await crowd.lease("silent-1")
    one = await crowd.start()
    await crowd.say_renewed("silent-1", 99)
    await until(one.knows)
    assert not await crowd.there("silent-1")


async def test_a_refused_deletion_that_was_heard_is_none(crowd: Instances) -> None:
    one, other = await crowd.start(), await crowd.start()
    await until(lambda: one.knows(other))
    changed = one.changed
    await crowd.say(other.id, b"", {"KV-Operation": "DEL"})
    await crowd.lease("silent-1")
    await until(lambda: "silent-1" in one.leases.instances())  # it was heard after the deletion
    assert other.id in one.leases.instances()
    assert one.changed == changed + 1


async def test_a_deletion_that_was_heard_before_it_was_stored_is_seen(crowd: Instances) -> None:
    revision = await crowd.lease("gone-1")
    one = await crowd.start()
    await crowd.say("gone-1", b"", {"KV-Operation": "DEL"})
    await crowd.bucket.delete(crowd.key("gone-1"), revision)
    await until(one.knows)


async def test_what_is_no_lease_is_not_heard(crowd: Instances) -> None:
    one = await crowd.start()
    await crowd.say("odd-1", b"what is this?")
    await crowd.lease("silent-1")
    await until(lambda: "silent-1" in one.leases.instances())
    assert "odd-1" not in one.leases.instances()


# --- those who were away --------------------------------------------------------------------------


async def test_who_was_cut_off_fences_nobody_when_it_is_back(
    station: Station, crowd: Instances
) -> None:
    proxy = await Proxy(int(station.url.rpartition(":")[2])).start()
    cut = await Bus.connect(
        f"nats://127.0.0.1:{proxy.port}", creds=station.creds("root"), name="cut"
    )
    other, one = await crowd.start(), await crowd.start(cut)
    await until(lambda: one.knows(other) and other.knows(one))
    former = one.id
    proxy.pause()
    await until(other.knows)  # it has fenced the one that is cut off
    proxy.heal()
    await until(lambda: one.fenced == 1)
    await until(lambda: one.knows(other) and other.knows(one))
    assert one.id != former
    assert not other.fenced
    await one.leases.stop()
    await cut.close()
    await proxy.close()


async def test_after_a_restart_of_the_server_nobody_is_taken_for_dead(
    frail: Station, short: None
) -> None:
    bus = await frail.connect()
    async with instances(bus) as crowd:
        await crowd.lease("late-1")
        one = await crowd.start()
        await frail.kill()
        await until(lambda: not one.leases.valid)
        one.leases._heard["late-1"].at -= 10 * timing.TAKEOVER  # it was away for long
        await frail.start()
        await until(lambda: one.leases.valid)
        await one.renews(2)
        assert "late-1" in one.leases.instances()


async def test_who_is_back_first_after_a_restart_waits_for_the_others(
    frail: Station, short: None
) -> None:
    bus = await frail.connect()
    async with instances(bus) as crowd:
        await crowd.lease("late-1")
        one = await crowd.start()
        await frail.kill()
        await until(lambda: not one.leases.valid)
        await frail.start()
        await until(lambda: one.leases.valid)
        back = time.monotonic()
        await until(lambda: time.monotonic() > back + 1.5 * timing.TAKEOVER)
        assert "late-1" in one.leases.instances()
        await until(one.knows)  # but not for ever


async def test_who_slept_gives_the_others_their_time_again(crowd: Instances) -> None:
    await crowd.lease("late-1")
    one = await crowd.start()
    before = one.leases._heard["late-1"].at
    time.sleep(2 * timing.TAKEOVER)
    await one.renews(1)
    assert "late-1" in one.leases.instances()
    assert one.leases._heard["late-1"].at > before


async def test_a_lease_that_was_not_heard_is_read_now_and_then(
    crowd: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "RELOAD", 0.1)
    one = await crowd.start()
    assert one.leases._subscription is not None
    await one.leases._subscription.stop()
    await crowd.lease("unheard-1")
    await until(lambda: "unheard-1" in one.leases.instances())


# --- what is left ---------------------------------------------------------------------------------


async def test_the_marker_of_a_lease_goes_after_some_time(crowd: Instances, bus: Bus) -> None:
    one = await crowd.start()
    key = crowd.key(one.leases.id)
    await one.leases.stop()
    marker = await crowd.bucket.read(key)
    assert marker is not None
    assert marker.deleted
    assert marker.headers["Nats-TTL"] == "3600s"
