"""The verify keys of tenant contexts, from the bucket into every key ring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tenantry.bus import Bucket, Bus
from tenantry.bus import jetstream as js
from tenantry.context.token import Minter
from tenantry.errors import BadContext
from tenantry.messages import VerifyKey
from tenantry.runtime.keys import BUCKET, KeyTable, publish_key
from tenantry.streams import bucket_config
from tests.unit.bus.station import Station, fresh, until


def minter() -> Minter:
    return Minter(fresh("key"), fresh("seed").encode().ljust(32, b"\0"))


async def make(bus: Bus) -> Bucket[VerifyKey]:
    await js.ensure_stream(bus, bucket_config(BUCKET, history=8))
    return Bucket(bus, BUCKET, VerifyKey)


@pytest.fixture
async def bucket(bus: Bus) -> Bucket[VerifyKey]:
    return await make(bus)


@pytest.fixture
async def keys(station: Station, bucket: Bucket[VerifyKey]) -> AsyncIterator[KeyTable]:
    """As a service has them."""
    keys = KeyTable(await station.connect("service"))
    await keys.start()
    yield keys
    await keys.stop()


def verifies(keys: KeyTable, minter: Minter) -> bool:
    try:
        keys.ring.verify(minter.mint("acme", "p", "x"), "acme", time.time())
    except BadContext:
        return False
    return True


async def test_a_key_that_is_published_verifies_everywhere(bus: Bus, keys: KeyTable) -> None:
    new = minter()
    assert not verifies(keys, new)
    await publish_key(bus, new)
    await until(lambda: verifies(keys, new))


async def test_keys_that_were_there_before_are_loaded(
    station: Station, bus: Bus, bucket: Bucket[VerifyKey]
) -> None:
    new = minter()
    await publish_key(bus, new)
    keys = KeyTable(await station.connect("service"))
    await keys.start()
    assert verifies(keys, new)
    await keys.stop()


async def test_publishing_again_changes_nothing(bus: Bus, bucket: Bucket[VerifyKey]) -> None:
    new = minter()
    await publish_key(bus, new)
    before = await bucket.get(f"context.{new.kid}")
    await publish_key(bus, new)
    assert await bucket.get(f"context.{new.kid}") == before


async def test_a_key_that_retires_verifies_nothing_new(
    bus: Bus, bucket: Bucket[VerifyKey], keys: KeyTable
) -> None:
    new = minter()
    await publish_key(bus, new)
    await until(lambda: verifies(keys, new))
    retired = VerifyKey(kid=new.kid, key=new.public_key, created=1.0, retired=time.time() - 1)
    await bucket.put(f"context.{new.kid}", retired)
    await until(lambda: not verifies(keys, new))


async def test_a_key_that_is_taken_away_verifies_nothing(
    bus: Bus, bucket: Bucket[VerifyKey], keys: KeyTable
) -> None:
    new = minter()
    await publish_key(bus, new)
    await until(lambda: verifies(keys, new))
    await bucket.delete(f"context.{new.kid}")
    await until(lambda: not verifies(keys, new))


async def test_what_is_no_key_does_not_stop_the_next(
    bus: Bus, bucket: Bucket[VerifyKey], keys: KeyTable
) -> None:
    name, new = f"context.{fresh('bad')}", minter()
    await bucket.put(name, VerifyKey(kid="bad", key="no key", created=1.0))
    await publish_key(bus, new)
    await until(lambda: verifies(keys, new))
    await bucket.delete(name)


async def test_one_waits_for_the_control_plane_to_make_the_bucket(frail: Station) -> None:
    control, new = await frail.connect(), minter()
    keys = KeyTable(await frail.connect("service"))
    waiting = asyncio.create_task(keys.wait())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await make(control)
    await publish_key(control, new)
    await asyncio.wait_for(waiting, 5)
    await until(lambda: verifies(keys, new))
    await keys.stop()


async def test_a_worker_waits_for_the_keys_to_be_set_up(
    bus: Bus, bucket: Bucket[VerifyKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    status = Bucket.status

    async def counted(self: Bucket[VerifyKey]) -> object:
        asked.append(1)
        return await status(self)

    await js.api(bus, f"STREAM.DELETE.KV_{BUCKET}")
    monkeypatch.setattr(Bucket, "status", counted)
    table = KeyTable(bus)
    waiting = asyncio.create_task(table.wait())
    await until(lambda: len(asked) > 1)
    assert not waiting.done()
    await make(bus)
    await waiting
    await table.stop()
