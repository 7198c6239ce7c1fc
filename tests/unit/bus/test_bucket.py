"""Key-value buckets: reads, and writes that never overwrite what they have not seen."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from msgspec import Struct

from tenantry.bus import Bucket, Bus, Entry
from tenantry.bus import jetstream as js
from tenantry.errors import Conflict, JetStreamError, Unavailable
from tests.unit.bus.station import Station, fresh


class Item(Struct, frozen=True):
    sku: str
    count: int = 1


@pytest.fixture
async def bucket(station: Station, bus: Bus) -> Bucket[Item]:
    return await station.bucket(bus, Item)


async def test_what_is_put_is_got(bucket: Bucket[Item]) -> None:
    revision = await bucket.put("a", Item("x", 2))
    assert await bucket.get("a") == Entry(Item("x", 2), revision)


async def test_what_is_not_there_is_none(bucket: Bucket[Item]) -> None:
    assert await bucket.get("a") is None


async def test_keys_do_not_know_each_other(bucket: Bucket[Item]) -> None:
    await bucket.put("a", Item("a"))
    await bucket.put("a.b", Item("ab"))
    entry = await bucket.get("a")
    assert entry is not None
    assert entry.value == Item("a")


async def test_each_write_has_a_higher_revision(bucket: Bucket[Item]) -> None:
    revisions = [await bucket.put(key, Item("x")) for key in ("a", "b", "a")]
    assert revisions == sorted(set(revisions))


async def test_a_new_key_is_created(bucket: Bucket[Item]) -> None:
    revision = await bucket.create("a", Item("x"))
    assert await bucket.get("a") == Entry(Item("x"), revision)


async def test_a_key_that_exists_is_not_created(bucket: Bucket[Item]) -> None:
    await bucket.create("a", Item("first"))
    with pytest.raises(Conflict, match=r"/a has changed meanwhile"):
        await bucket.create("a", Item("second"))
    entry = await bucket.get("a")
    assert entry is not None
    assert entry.value == Item("first")


async def test_a_deleted_key_is_gone(bucket: Bucket[Item]) -> None:
    await bucket.put("a", Item("x"))
    await bucket.delete("a")
    assert await bucket.get("a") is None


async def test_a_deleted_key_is_created_again(bucket: Bucket[Item]) -> None:
    await bucket.create("a", Item("first"))
    await bucket.delete("a")
    revision = await bucket.create("a", Item("second"))
    assert await bucket.get("a") == Entry(Item("second"), revision)


async def test_of_many_who_create_a_deleted_key_one_does(bucket: Bucket[Item]) -> None:
    await bucket.create("a", Item("old"))
    await bucket.delete("a")
    results = await asyncio.gather(
        *(bucket.create("a", Item(f"n{number}")) for number in range(10)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 9 + ["int"]


async def test_the_revision_that_was_seen_is_updated(bucket: Bucket[Item]) -> None:
    seen = await bucket.create("a", Item("x"))
    revision = await bucket.update("a", Item("y"), seen)
    assert await bucket.get("a") == Entry(Item("y"), revision)


@pytest.mark.parametrize("offset", [-1, 1, 1000])
async def test_another_revision_is_not_updated(bucket: Bucket[Item], offset: int) -> None:
    seen = await bucket.put("a", Item("x"))
    with pytest.raises(Conflict):
        await bucket.update("a", Item("y"), seen + offset)


async def test_a_key_that_was_deleted_meanwhile_is_not_updated(bucket: Bucket[Item]) -> None:
    seen = await bucket.put("a", Item("x"))
    await bucket.delete("a")
    with pytest.raises(Conflict):
        await bucket.update("a", Item("y"), seen)


async def test_of_many_who_update_one_revision_one_does(bucket: Bucket[Item]) -> None:
    seen = await bucket.put("a", Item("x", 0))
    results = await asyncio.gather(
        *(bucket.update("a", Item("x", number), seen) for number in range(10)),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 9 + ["int"]


async def test_compare_and_set_loses_no_update(bucket: Bucket[Item]) -> None:
    await bucket.create("a", Item("x", 0))

    async def increment() -> None:
        while True:
            entry = await bucket.get("a")
            assert entry is not None
            try:
                await bucket.update("a", Item("x", entry.value.count + 1), entry.revision)
            except Conflict:
                continue
            return

    await asyncio.gather(*(increment() for _ in range(10)))
    entry = await bucket.get("a")
    assert entry is not None
    assert entry.value.count == 10


async def test_a_value_of_another_type_is_told(bucket: Bucket[Item], bus: Bus) -> None:
    await js.store(bus, f"$KV.{bucket.name}.a", b'{"sku": 5}')
    with pytest.raises(msgspec.ValidationError, match=r"\$\.sku"):
        await bucket.get("a")


async def test_a_bucket_that_is_not_there_is_told(bus: Bus) -> None:
    bucket = Bucket(bus, fresh("nowhere"), Item)
    with pytest.raises(Unavailable):
        await bucket.get("a")
    with pytest.raises(Unavailable):
        await bucket.put("a", Item("x"))
    with pytest.raises(JetStreamError, match="stream not found"):
        await bucket.status()


async def test_the_state_of_a_bucket_is_told(bucket: Bucket[Item]) -> None:
    await bucket.put("a", Item("x"))
    assert (await bucket.status())["last_seq"] == 1


async def test_a_bucket_keeps_as_much_history_as_it_should(station: Station, bus: Bus) -> None:
    bucket = await station.bucket(bus, Item, history=2)
    for number in range(5):
        await bucket.put("a", Item("x", number))
    assert (await bucket.status())["messages"] == 2


async def test_the_nats_py_of_anybody_reads_what_we_write(
    station: Station, bus: Bus, bucket: Bucket[Item]
) -> None:
    """The layout is that of ADR-8, so `nats kv` does too."""
    import nats

    await bucket.put("a", Item("x"))
    await bucket.put("b", Item("y"))
    await bucket.delete("b")
    creds = station.creds("root")
    client = await nats.connect(
        station.url, user_credentials=str(creds), inbox_prefix=bus.inbox.rpartition(".")[0]
    )
    try:
        store = await client.jetstream().key_value(bucket.name)
        assert msgspec.json.decode((await store.get("a")).value or b"") == {"sku": "x", "count": 1}
        assert await store.keys() == ["a"]
    finally:
        await client.close()
