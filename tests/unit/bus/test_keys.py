"""The verify keys of tenant contexts: from the bucket into every key ring, when certified."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from tenantry.bus import Bucket, Bus, Table
from tenantry.bus import jetstream as js
from tenantry.context.token import Minter
from tenantry.errors import BadContext, SetupError, Unavailable
from tenantry.messages import VerifyKey
from tenantry.operator import certificate
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind
from tenantry.runtime.keys import BUCKET, ContextSigner, KeyTable
from tenantry.streams import bucket_config
from tests.unit.bus.station import Station, fresh, until


def minter() -> Minter:
    return Minter(fresh("key"), fresh("seed").encode().ljust(32, b"\0"))


def record(minter: Minter, **state: object) -> VerifyKey:
    key = VerifyKey(kid=minter.kid, key=minter.public_key, created=1.0, active=1.0, serial=1)
    return msgspec.structs.replace(key, **state)


class Keys:
    """The bucket, written with and without certificates."""

    def __init__(self, bus: Bus, root: KeyPair) -> None:
        self.bucket = Bucket(bus, BUCKET, VerifyKey)
        self.root = root

    async def publish(self, minter: Minter, **state: object) -> VerifyKey:
        key = certificate.certify(record(minter, **state), self.root)
        await self.bucket.put(f"context.{minter.kid}", key)
        return key


def root(station: Station) -> KeyPair:
    return KeyPair.from_seed((station.home.path / "keys/context-root.nk").read_text())


@pytest.fixture
async def bucket(station: Station, bus: Bus) -> Keys:
    await js.ensure_stream(bus, bucket_config(BUCKET, history=8))
    return Keys(bus, root(station))


@pytest.fixture
async def keys(station: Station, bucket: Keys) -> AsyncIterator[KeyTable]:
    """As a service has them."""
    keys = KeyTable(await station.connect("service", "reader"))
    await keys.start()
    yield keys
    await keys.stop()


@pytest.fixture
async def known(bucket: Keys, keys: KeyTable) -> Minter:
    """One whose key is known, and may sign."""
    new = minter()
    await bucket.publish(new)
    await until(lambda: verifies(keys, new))
    return new


def verifies(keys: KeyTable, minter: Minter, at: float | None = None) -> bool:
    now = time.time() if at is None else at
    try:
        keys.ring.verify(minter.mint("acme", "p", "x", now=now), "acme", now)
    except BadContext:
        return False
    return True


async def settled(bucket: Keys, keys: KeyTable) -> None:
    """Return when the table has seen all that was written."""
    last = minter()
    await bucket.publish(last)
    await until(lambda: verifies(keys, last))


async def test_a_key_that_is_published_verifies_everywhere(known: Minter, keys: KeyTable) -> None:
    assert verifies(keys, known)


async def test_keys_that_were_there_before_are_loaded(station: Station, bucket: Keys) -> None:
    new = minter()
    await bucket.publish(new)
    keys = KeyTable(await station.connect("service", "reader"))
    await keys.start()
    assert verifies(keys, new)
    await keys.stop()


async def test_a_key_that_retires_verifies_nothing_new(
    bucket: Keys, keys: KeyTable, known: Minter
) -> None:
    await bucket.publish(known, retired=time.time() - 1, serial=2)
    await until(lambda: not verifies(keys, known))


async def test_a_key_that_is_revoked_verifies_nothing(
    bucket: Keys, keys: KeyTable, known: Minter
) -> None:
    await bucket.publish(known, revoked=time.time(), serial=2)
    await until(lambda: not verifies(keys, known))


async def test_what_was_stored_before_a_key_was_stolen_still_verifies(
    bucket: Keys, keys: KeyTable, known: Minter
) -> None:
    stolen = time.time()
    await bucket.publish(known, revoked=stolen, since=stolen, serial=2)
    await until(lambda: not verifies(keys, known))
    assert verifies(keys, known, at=stolen - 1)


async def test_a_key_without_a_certificate_verifies_nothing(bucket: Keys, keys: KeyTable) -> None:
    forged = minter()
    await bucket.bucket.put(f"context.{forged.kid}", record(forged))
    await settled(bucket, keys)
    assert not verifies(keys, forged)


async def test_a_key_with_the_certificate_of_a_stranger_verifies_nothing(
    bucket: Keys, keys: KeyTable
) -> None:
    forged = minter()
    await Keys(bucket.bucket.bus, KeyPair.generate(Kind.ACCOUNT)).publish(forged)
    await settled(bucket, keys)
    assert not verifies(keys, forged)


async def test_what_stands_beside_a_certificate_counts_for_nothing(
    bucket: Keys, keys: KeyTable, known: Minter
) -> None:
    forged = minter()
    good = (await bucket.publish(known)).certificate
    await bucket.bucket.put(
        f"context.{forged.kid}", msgspec.structs.replace(record(forged), certificate=good)
    )
    await settled(bucket, keys)
    assert not verifies(keys, forged)


async def test_a_retired_key_is_not_brought_back_without_a_certificate(
    bucket: Keys, keys: KeyTable, known: Minter
) -> None:
    await bucket.publish(known, retired=time.time() - 1, serial=2)
    await bucket.bucket.put(f"context.{known.kid}", record(known))
    await settled(bucket, keys)
    assert not verifies(keys, known)


async def test_a_revoked_key_is_not_brought_back_by_its_former_certificate(
    bucket: Keys, keys: KeyTable, known: Minter
) -> None:
    former = await bucket.publish(known)
    await bucket.publish(known, revoked=time.time(), serial=2)
    await bucket.bucket.put(f"context.{known.kid}", former)
    await settled(bucket, keys)
    assert not verifies(keys, known)


async def test_a_revoked_key_is_not_brought_back_under_another_id(
    bucket: Keys, keys: KeyTable, known: Minter
) -> None:
    """Its former certificate is good, and no newer one is known of that id."""
    seed, other = b"\5" * 32, fresh("other")
    stolen = Minter(fresh("stolen"), seed)
    former = await bucket.publish(stolen)
    await bucket.publish(stolen, revoked=time.time(), serial=2)
    await bucket.bucket.put(f"context.{other}", former)
    await settled(bucket, keys)
    assert not verifies(keys, stolen)
    assert not verifies(keys, Minter(other, seed))


async def test_a_key_that_is_deleted_still_verifies(
    bucket: Keys, keys: KeyTable, known: Minter
) -> None:
    await bucket.bucket.delete(f"context.{known.kid}")
    await settled(bucket, keys)
    assert verifies(keys, known)


async def test_the_bytes_of_anything_do_not_stop_the_next(bucket: Keys, keys: KeyTable) -> None:
    await bucket.bucket.write(f"context.{fresh('bad')}", b'{"error": {"code": 500}}')
    await settled(bucket, keys)


async def test_credentials_that_name_no_root_are_refused(
    station: Station, bucket: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creds_files, "root_of", lambda _text: None)
    bus = await station.connect("service", "reader")
    with pytest.raises(SetupError, match="do not say which root"):
        KeyTable(bus)


async def test_what_was_missed_while_the_connection_was_lost_can_be_waited_for(
    bucket: Keys, keys: KeyTable
) -> None:
    new = minter()
    assert not await keys.caught_up()
    await bucket.publish(new)
    keys._missed()  # as the bus tells it after a reconnect
    assert await keys.caught_up()
    assert verifies(keys, new)


async def test_what_is_missed_twice_is_waited_for_once(bucket: Keys, keys: KeyTable) -> None:
    new = minter()
    await bucket.publish(new)
    for _ in range(2):
        keys._missed()
    assert await keys.caught_up()
    assert verifies(keys, new)


async def test_who_can_not_catch_up_goes_on_with_what_it_knows(
    keys: KeyTable, known: Minter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_table: Table[VerifyKey]) -> None:
        raise TimeoutError

    monkeypatch.setattr(Table, "sync", fails)
    keys._missed()
    assert await keys.caught_up()
    assert verifies(keys, known)


async def test_a_revision_can_be_waited_for(bucket: Keys, keys: KeyTable) -> None:
    new = minter()
    revision = await bucket.bucket.put(
        f"context.{new.kid}", certificate.certify(record(new), bucket.root)
    )
    await keys.reach(revision)
    assert verifies(keys, new)


async def test_what_is_certified_but_no_key_is_passed_over(bucket: Keys, keys: KeyTable) -> None:
    new = minter()
    odd = certificate.certify(record(new, key="AAAA"), bucket.root)
    await bucket.bucket.put(f"context.{new.kid}", odd)
    await settled(bucket, keys)
    assert not verifies(keys, new)


async def test_a_signer_waits_for_a_key_whose_seed_it_has(
    station: Station, bucket: Keys, keys: KeyTable
) -> None:
    signer = ContextSigner(station.home, keys)
    with pytest.raises(Unavailable, match="no key to sign"):
        signer.mint("acme", "p", "edge")
    ready = asyncio.create_task(signer.ready())
    await asyncio.sleep(0)
    assert signer.about() == {"context_key": ""}
    kid, seed = station.home.context_keys()[-1]
    own = Minter(kid, seed)
    await bucket.publish(own)
    await asyncio.wait_for(ready, 5)
    assert signer.kid == kid
    keys.ring.verify(signer.mint("acme", "p", "edge"), "acme", time.time())
    await bucket.publish(own, serial=2, revoked=time.time())
    await until(lambda: signer.kid == "")


async def test_a_key_without_a_seed_signs_nothing(
    station: Station, bucket: Keys, keys: KeyTable, known: Minter
) -> None:
    signer = ContextSigner(station.home, keys)
    signer._choose()
    signer._choose()
    assert signer.kid == ""
    assert known.kid in signer._missing


async def test_one_waits_for_the_control_plane_to_make_the_bucket(frail: Station) -> None:
    control, new = await frail.connect(), minter()
    keys = KeyTable(await frail.connect("service", "reader"))
    waiting = asyncio.create_task(keys.wait())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await js.ensure_stream(control, bucket_config(BUCKET, history=8))
    await Keys(control, root(frail)).publish(new)
    await asyncio.wait_for(waiting, 5)
    await until(lambda: verifies(keys, new))
    await keys.stop()


async def test_a_worker_waits_for_the_keys_to_be_set_up(
    bus: Bus, bucket: Keys, monkeypatch: pytest.MonkeyPatch
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
    await js.ensure_stream(bus, bucket_config(BUCKET, history=8))
    await waiting
    await table.stop()
