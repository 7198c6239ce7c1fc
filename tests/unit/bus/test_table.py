"""Tables: a bucket in memory, current through changes, faults and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog
from msgspec import Struct

from tenantry.bus import Bucket, Bus, Table
from tenantry.bus import jetstream as js
from tenantry.errors import NotFound
from tests.unit.bus.station import Station, fresh, until


class Item(Struct, frozen=True):
    sku: str
    more: dict[str, Any] = {}


Started = Callable[..., Awaitable[Table[Item]]]


@pytest.fixture
async def bucket(station: Station, bus: Bus) -> Bucket[Item]:
    return await station.bucket(bus, Item)


@pytest.fixture
async def started() -> AsyncIterator[Started]:
    """Starts tables and stops them at the end."""
    async with AsyncExitStack() as stack:

        async def start(bucket: Bucket[Item], **options: Any) -> Table[Item]:
            table = Table(bucket, **options)
            await table.start(timeout=5)
            stack.push_async_callback(table.stop)
            return table

        yield start


async def raw(bucket: Bucket[Item], key: str, body: bytes) -> int:
    return (await js.store(bucket.bus, f"$KV.{bucket.name}.{key}", body)).seq


async def purge(bucket: Bucket[Item], **filters: str) -> None:
    """Take messages away without leaving a marker, as an erasure does."""
    await js.api(bucket.bus, f"STREAM.PURGE.KV_{bucket.name}", filters)


async def watches(bucket: Bucket[Item]) -> list[str]:
    listed = await js.api(bucket.bus, f"CONSUMER.NAMES.KV_{bucket.name}")
    names: list[str] = listed["consumers"] or []
    return names


# loading


async def test_an_empty_bucket_is_an_empty_table(bucket: Bucket[Item], started: Started) -> None:
    table = await started(bucket)
    assert (table.rows, len(table), table.get("a")) == ({}, 0, None)


async def test_what_is_there_is_loaded(bucket: Bucket[Item], started: Started) -> None:
    await bucket.put("a", Item("old"))
    await bucket.put("b.c", Item("x"))
    await bucket.put("a", Item("new"))
    assert (await started(bucket)).rows == {"a": Item("new"), "b.c": Item("x")}


async def test_what_was_deleted_is_not_loaded(bucket: Bucket[Item], started: Started) -> None:
    await bucket.put("a", Item("x"))
    await bucket.put("b", Item("x"))
    await bucket.delete("b")
    assert set((await started(bucket)).rows) == {"a"}


async def test_a_bucket_with_nothing_but_deletions_is_loaded(
    bucket: Bucket[Item], started: Started
) -> None:
    await bucket.put("a", Item("x"))
    await bucket.delete("a")
    assert (await started(bucket)).rows == {}


async def test_a_large_bucket_is_loaded_whole(bucket: Bucket[Item], started: Started) -> None:
    await asyncio.gather(*(bucket.put(f"k{number}", Item(str(number))) for number in range(700)))
    table = await started(bucket)
    assert table.rows == {f"k{number}": Item(str(number)) for number in range(700)}


async def test_only_what_is_asked_for_is_loaded(bucket: Bucket[Item], started: Started) -> None:
    await bucket.put("a.x", Item("x"))
    await bucket.put("b.x", Item("x"))
    assert set((await started(bucket, filter="a.>")).rows) == {"a.x"}


async def test_a_bucket_that_is_not_there_is_told(bus: Bus) -> None:
    with pytest.raises(NotFound, match="can't be read"):
        await Table(Bucket(bus, fresh("nowhere"), Item)).start(timeout=0.2)


# following


async def test_a_change_is_seen(bucket: Bucket[Item], started: Started) -> None:
    table = await started(bucket)
    await table.reach(await bucket.put("a", Item("x")))
    await table.reach(await bucket.put("a", Item("y")))
    assert table.get("a") == Item("y")


async def test_a_deletion_is_seen(bucket: Bucket[Item], started: Started) -> None:
    await bucket.put("a", Item("x"))
    table = await started(bucket)
    await bucket.delete("a")
    await until(lambda: table.get("a") is None)


async def test_who_listens_is_told_of_each_change(bucket: Bucket[Item], started: Started) -> None:
    told: list[tuple[str, Item | None]] = []
    await bucket.put("a", Item("x"))
    table = await started(bucket, changed=lambda *change: told.append(change))
    await bucket.put("a", Item("y"))
    await bucket.put("b", Item("z"))
    await bucket.delete("a")
    await until(lambda: len(told) == 4)
    assert told == [("a", Item("x")), ("a", Item("y")), ("b", Item("z")), ("a", None)]
    assert table.rows == {"b": Item("z")}


async def test_the_table_has_the_change_when_who_listens_is_told(
    bucket: Bucket[Item], started: Started
) -> None:
    seen: list[bool] = []
    table: Table[Item] = Table(bucket)
    table.listen(lambda key, value: seen.append(table.get(key) == value))
    await bucket.put("a", Item("x"))
    await table.start()
    await table.reach(await bucket.put("a", Item("y")))
    await table.stop()
    assert seen == [True, True]


async def test_what_we_wrote_is_there_before_the_watch_tells(
    bucket: Bucket[Item], started: Started
) -> None:
    table = await started(bucket)
    table.wrote("a", Item("ours"), await bucket.put("a", Item("ours")))
    assert table.get("a") == Item("ours")


async def test_what_we_wrote_does_not_take_the_place_of_something_newer(
    bucket: Bucket[Item], started: Started
) -> None:
    """As where the answer to the write and the watch's news of the next one come together."""
    table = await started(bucket)
    ours = await bucket.put("a", Item("ours"))
    await table.reach(await bucket.put("a", Item("newer")))
    table.wrote("a", Item("ours"), ours)
    assert table.get("a") == Item("newer")


async def test_the_same_again_is_no_change(bucket: Bucket[Item], started: Started) -> None:
    told: list[str] = []
    table = await started(bucket, changed=lambda key, _: told.append(key))
    for sku in ("x", "x", "y"):
        await table.reach(await bucket.put("a", Item(sku)))
    assert told == ["a", "a"]


async def test_who_raises_while_it_is_told_holds_up_nothing(
    bucket: Bucket[Item], started: Started
) -> None:
    def fail(_key: str, _value: Item | None) -> None:
        raise ValueError("broken")

    await bucket.put("a", Item("x"))
    table = await started(bucket, changed=fail)
    await table.reach(await bucket.put("b", Item("y")))
    assert table.rows == {"a": Item("x"), "b": Item("y")}


async def test_reaching_what_never_comes_ends(bucket: Bucket[Item], started: Started) -> None:
    table = await started(bucket)
    with pytest.raises(TimeoutError):
        await table.reach(1, timeout=0.05)


async def test_many_may_wait_for_one_change(bucket: Bucket[Item], started: Started) -> None:
    table = await started(bucket)
    waiting = [asyncio.create_task(table.reach(3)) for _ in range(5)]
    for number in range(3):
        await bucket.put("a", Item(str(number)))
    await asyncio.gather(*waiting)
    assert table.get("a") == Item("2")


# bad values


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"\xff", b'{"sku": 5}', b"{}", b'{"sku": "a", "more": ' + b"[" * 9000],
)
async def test_a_bad_value_keeps_the_last_good_one(
    bucket: Bucket[Item], started: Started, body: bytes
) -> None:
    await bucket.put("a", Item("good"))
    table = await started(bucket)
    await table.reach(await raw(bucket, "a", body))
    await table.reach(await bucket.put("b", Item("next")))
    assert table.rows == {"a": Item("good"), "b": Item("next")}


@pytest.mark.parametrize("body", [b"not json", b'{"sku": "a", "more": {"x":' + b"[" * 9000])
async def test_a_bad_value_does_not_hold_up_the_loading(
    bucket: Bucket[Item], started: Started, body: bytes
) -> None:
    await bucket.put("a", Item("good"))
    await raw(bucket, "b", body)
    assert (await started(bucket)).rows == {"a": Item("good")}


async def test_a_good_value_heals_a_bad_one(bucket: Bucket[Item], started: Started) -> None:
    await raw(bucket, "a", b"bad")
    table = await started(bucket)
    await table.reach(await bucket.put("a", Item("good")))
    assert table.get("a") == Item("good")


# losing the watch


async def test_a_watch_that_somebody_deletes_is_made_again(
    bucket: Bucket[Item], started: Started
) -> None:
    await bucket.put("a", Item("x"))
    table = await started(bucket)
    (watch,) = await watches(bucket)
    await js.api(bucket.bus, f"CONSUMER.DELETE.KV_{bucket.name}.{watch}")
    await bucket.put("a", Item("y"))
    await until(lambda: table.get("a") == Item("y"))


async def test_a_watch_that_fell_behind_is_made_again(
    bucket: Bucket[Item], started: Started, quick: Callable[[str, float], None]
) -> None:
    quick("kv._RECHECK", 0.05)
    await bucket.put("a", Item("x"))
    await bucket.put("b", Item("y"))
    table = await started(bucket)
    # As if the last change had never arrived.
    table.rows.pop("b")
    table.revision = 1
    await until(lambda: table.get("b") == Item("y"))


async def test_a_bucket_whose_end_was_purged_is_loaded_anew_once(
    bucket: Bucket[Item], started: Started, quick: Callable[[str, float], None]
) -> None:
    """Its last number then belongs to no message, however often one looks."""
    quick("kv._RECHECK", 0.03)
    await bucket.put("a", Item("x"))
    await bucket.put("b", Item("y"))
    await purge(bucket, filter=f"$KV.{bucket.name}.b")
    with structlog.testing.capture_logs() as logs:
        table = await started(bucket)
        await asyncio.sleep(0.5)
    behind = [entry for entry in logs if entry["event"] == "watch fell behind"]
    assert len(behind) <= 1
    await table.reach(await bucket.put("c", Item("z")))
    assert table.rows == {"a": Item("x"), "c": Item("z")}


async def test_a_quiet_bucket_keeps_its_watch(
    bucket: Bucket[Item], started: Started, quick: Callable[[str, float], None]
) -> None:
    quick("kv._RECHECK", 0.03)
    await bucket.put("a", Item("x"))
    await started(bucket)
    before = await watches(bucket)
    await asyncio.sleep(0.3)
    assert await watches(bucket) == before


async def test_stopping_takes_the_watch_away(bucket: Bucket[Item], started: Started) -> None:
    table = await started(bucket)
    await table.stop()
    assert await watches(bucket) == []
    await bucket.put("a", Item("x"))
    assert table.rows == {}


async def test_stopping_leaves_nothing_with_the_bus(bucket: Bucket[Item], started: Started) -> None:
    bus = bucket.bus
    before = (len(bus._link._listeners), len(bus._subscriptions))
    for _ in range(3):
        await (await started(bucket)).stop()
    assert (len(bus._link._listeners), len(bus._subscriptions)) == before


# restarts of the server


@pytest.fixture
async def frail_bucket(frail: Station) -> Bucket[Item]:
    return await frail.bucket(await frail.connect(), Item)


async def restart(station: Station, bus: Bus) -> None:
    await station.kill()
    await until(lambda: not bus.connected)
    await station.start()
    await until(lambda: bus.connected)


async def test_while_nats_is_away_the_last_state_stays(
    frail: Station, frail_bucket: Bucket[Item], started: Started
) -> None:
    await frail_bucket.put("a", Item("x"))
    table = await started(frail_bucket)
    await frail.kill()
    await until(lambda: not frail_bucket.bus.connected)
    assert table.get("a") == Item("x")
    await frail.start()


async def test_after_a_restart_it_is_current_again(
    frail: Station, frail_bucket: Bucket[Item], started: Started
) -> None:
    await frail_bucket.put("a", Item("x"))
    table = await started(frail_bucket)
    await restart(frail, frail_bucket.bus)
    await frail_bucket.put("a", Item("y"))
    await until(lambda: table.get("a") == Item("y"))
    await frail_bucket.put("b", Item("z"))
    await until(lambda: table.get("b") == Item("z"))


async def test_a_key_that_went_without_a_word_is_gone_after_a_restart(
    frail: Station, frail_bucket: Bucket[Item], started: Started
) -> None:
    told: list[tuple[str, Item | None]] = []
    await frail_bucket.put("a", Item("x"))
    await frail_bucket.put("b", Item("y"))
    table = await started(frail_bucket, changed=lambda *change: told.append(change))
    await purge(frail_bucket, filter=f"$KV.{frail_bucket.name}.b")
    assert table.get("b") == Item("y")  # nobody said so
    await restart(frail, frail_bucket.bus)
    await until(lambda: table.get("b") is None)
    assert (table.rows, told[-1]) == ({"a": Item("x")}, ("b", None))


async def test_what_did_not_change_is_not_told_again_after_a_restart(
    frail: Station, frail_bucket: Bucket[Item], started: Started
) -> None:
    told: list[str] = []
    await frail_bucket.put("a", Item("x"))
    table = await started(frail_bucket, changed=lambda key, _: told.append(key))
    await restart(frail, frail_bucket.bus)
    await frail_bucket.put("b", Item("y"))
    await until(lambda: table.get("b"))
    assert told == ["a", "b"]
