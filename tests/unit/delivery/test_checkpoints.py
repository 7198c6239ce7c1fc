"""The checkpoint of a partition is its owner's: it knows its own, and stops at another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.delivery.checkpoints import BUCKET, Checkpoints, Erased, Last, Taken
from tenantry.errors import Unavailable
from tenantry.messages.checkpoints import Checkpoint, Open
from tenantry.streams import bucket_config
from tests.unit.bus.station import fresh

MINE = Checkpoint(epoch=1, owner="me", read_to=10, open={"acme": Open(next=7)})
NEXT = replace(MINE, read_to=20, open={"acme": Open(next=7), "globex": Open(next=15)})
THEIRS = replace(NEXT, epoch=2, owner="they")

Real = Callable[..., Any]


class Bench:
    """The checkpoints of a service of its own, and one that was claimed."""

    def __init__(self, bus: Bus) -> None:
        self.kept = Checkpoints(bus, fresh("service"))
        self.last = Last(MINE, 0)

    async def claim(self) -> Bench:
        revision = await self.kept.claim(3, MINE, 0)
        assert revision is not None
        self.last = Last(MINE, revision)
        return self

    async def save(self, record: Checkpoint = NEXT) -> int:
        """Save as the owner does, which keeps what it has written."""
        revision = await self.kept.save(3, record, self.last)
        self.last = Last(record, revision)
        return revision

    async def there(self) -> Checkpoint:
        return (await self.kept.read(3)).record

    async def overwrite(self, record: Checkpoint) -> int:
        """Write as another does."""
        revision = (await self.kept.read(3)).revision
        written = await self.kept.claim(3, record, revision)
        assert written is not None
        return written

    def lose(self, *, stored: bool) -> None:
        """Lose the answer of the next write, or the write itself."""
        bucket: Any = self.kept._bucket
        real: Real = bucket.update

        async def update(key: str, record: Checkpoint, revision: int) -> int:
            bucket.update = real
            if stored:
                await real(key, record, revision)
            raise Unavailable("as the test wants it")

        bucket.update = update


@pytest.fixture
async def bench(bus: Bus) -> Bench:
    await js.ensure_stream(bus, bucket_config(BUCKET))
    return await Bench(bus).claim()


async def test_where_there_is_none_it_reads_an_empty_one(bench: Bench) -> None:
    found = await bench.kept.read(4)
    assert found.record == Checkpoint()
    assert (found.revision, found.at) == (0, 0.0)


async def test_it_reads_what_was_written(bench: Bench) -> None:
    found = await bench.kept.read(3)
    assert found.record == MINE
    assert found.revision == bench.last.revision
    assert found.at > 0
    assert found.size > 0


async def test_a_deleted_one_is_empty_and_can_be_claimed(bench: Bench) -> None:
    await bench.kept._bucket.delete(f"{bench.kept._service}.3")
    found = await bench.kept.read(3)
    assert found.record == Checkpoint()
    assert await bench.kept.claim(3, THEIRS, found.revision) is not None


async def test_of_two_that_claim_it_one_gets_it(bench: Bench) -> None:
    first = await bench.kept.claim(3, THEIRS, bench.last.revision)
    second = await bench.kept.claim(3, replace(THEIRS, owner="late"), bench.last.revision)
    assert first is not None
    assert second is None
    assert await bench.there() == THEIRS


async def test_its_owner_saves_it(bench: Bench) -> None:
    await bench.save()
    assert await bench.there() == NEXT


async def test_another_owner_is_not_written_over(bench: Bench) -> None:
    await bench.overwrite(THEIRS)
    with pytest.raises(Taken):
        await bench.save()
    assert await bench.there() == THEIRS


async def test_another_owner_with_the_same_epoch_is_not_written_over(bench: Bench) -> None:
    await bench.overwrite(replace(THEIRS, epoch=1))  # a power cut took the claim of ours away
    with pytest.raises(Taken):
        await bench.save()


async def test_a_release_whose_answer_got_lost_is_known_for_ours(bench: Bench) -> None:
    released = replace(NEXT, owner="")
    bench.lose(stored=False)
    with pytest.raises(Unavailable):
        await bench.save(released)
    await bench.overwrite(released)
    again = replace(released, read_to=30)
    with pytest.raises(Unavailable):
        await bench.save(again)
    await bench.save(again)
    assert await bench.there() == again


async def test_another_owner_is_seen_where_the_answer_got_lost(bench: Bench) -> None:
    await bench.overwrite(THEIRS)
    bench.lose(stored=False)
    with pytest.raises(Taken):
        await bench.save()


async def test_what_is_stored_though_its_answer_got_lost_is_saved(bench: Bench) -> None:
    bench.lose(stored=True)
    revision = await bench.save()
    assert await bench.there() == NEXT
    assert revision == (await bench.kept.read(3)).revision


async def test_what_got_lost_is_to_be_written_again(bench: Bench) -> None:
    bench.lose(stored=False)
    with pytest.raises(Unavailable):
        await bench.save()
    await bench.save()
    assert await bench.there() == NEXT


async def test_what_got_lost_and_is_stored_later_is_known_for_ours(bench: Bench) -> None:
    bench.lose(stored=False)
    with pytest.raises(Unavailable):
        await bench.save()
    await bench.overwrite(NEXT)  # it comes late, when a newer one is on its way
    newer = replace(NEXT, read_to=30)
    with pytest.raises(Unavailable):
        await bench.save(newer)
    await bench.save(newer)
    assert await bench.there() == newer


async def test_an_erasure_is_told_from_another_owner(bench: Bench) -> None:
    await bench.save()
    revision = await bench.overwrite(replace(NEXT, open={"globex": Open(next=15)}))
    with pytest.raises(Erased) as erased:
        await bench.save(replace(NEXT, read_to=30))
    assert erased.value.names == {"acme"}
    assert erased.value.revision == revision


async def test_after_an_erasure_its_owner_goes_on(bench: Bench) -> None:
    await bench.save()
    await bench.overwrite(replace(NEXT, open={}))
    with pytest.raises(Erased) as erased:
        await bench.save(replace(NEXT, read_to=30))
    bench.last.revision = erased.value.revision
    after = replace(NEXT, read_to=30, open={})
    await bench.save(after)
    assert await bench.there() == after


async def test_its_owner_goes_on_where_the_bucket_has_lost_the_last_ones(bench: Bench) -> None:
    bench.last = Last(NEXT, bench.last.revision + 1000)  # a power cut took it away
    with pytest.raises(Unavailable):
        await bench.save()
    await bench.save()
    assert await bench.there() == NEXT
