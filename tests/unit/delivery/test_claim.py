"""A partition is claimed when its former owner has left it for sure; what it left is known."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from msgspec.structs import replace

from tenantry import Service
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.delivery import timing
from tenantry.delivery.checkpoints import BUCKET, Checkpoints
from tenantry.delivery.claim import Claim, claim
from tenantry.delivery.dead_letters import DeadLetters
from tenantry.delivery.environment import Environment
from tenantry.delivery.suspects import Suspects
from tenantry.messages.checkpoints import Checkpoint, Open
from tenantry.streams import JournalLimits, bucket_config, journal_config
from tests.unit.bus.station import until
from tests.unit.delivery.instances import Instance, Instances

PARTITION = 3


class Bench:
    """A service of its own, an instance of it, and the partition that it claims."""

    def __init__(self, crowd: Instances, instance: Instance) -> None:
        service = Service(crowd.service, version="1.0.0")
        self.crowd = crowd
        self.kept = Checkpoints(crowd.bus, crowd.service)
        self.hint = asyncio.Event()
        self.wanted = True
        nothing = cast("Any", None)
        self.env = Environment(
            bus=crowd.bus,
            service=service,
            attempts=nothing,
            cursors=nothing,
            replays=nothing,
            suspended=nothing,
            checkpoints=self.kept,
            leases=instance.leases,
            letters=DeadLetters(crowd.bus, crowd.service),
            suspects=Suspects(),
        )

    async def claim(self) -> Claim | None:
        return await claim(self.env, PARTITION, self.hint, lambda: self.wanted)

    async def left(self, record: Checkpoint) -> float:
        """A former owner leaves this; returns when, by the server's clock."""
        found = await self.kept.read(PARTITION)
        assert await self.kept.claim(PARTITION, record, found.revision) is not None
        return (await self.kept.read(PARTITION)).at

    async def there(self) -> Checkpoint:
        return (await self.kept.read(PARTITION)).record

    async def end(self) -> int:
        """A message into the journal; returns its sequence, the last one."""
        return (await js.store(self.env.bus, "tenant.acme.orders.place", b"{}")).seq


@pytest.fixture
async def bench(bus: Bus, crowd: Instances) -> Bench:
    await js.ensure_stream(bus, bucket_config(BUCKET))
    await js.ensure_stream(bus, journal_config(JournalLimits(max_bytes=64 << 20)))
    return Bench(crowd, await crowd.start())


async def test_a_partition_that_nobody_had_is_ours(bench: Bench) -> None:
    taken = await bench.claim()
    assert taken is not None
    assert taken.last.record.unclean_to == 0
    there = await bench.there()
    assert (there.epoch, there.owner) == (1, bench.env.leases.id)
    assert there == taken.last.record


async def test_one_that_was_released_has_nothing_unclean(bench: Bench) -> None:
    await bench.end()
    await bench.left(Checkpoint(epoch=4, read_to=1))
    taken = await bench.claim()
    assert taken is not None
    assert taken.last.record.unclean_to == 0
    assert taken.last.record.epoch == 5


async def test_of_one_that_was_not_all_that_is_there_may_have_begun(bench: Bench) -> None:
    await bench.left(Checkpoint(epoch=4, owner="gone", read_to=1))
    end = await bench.end()
    taken = await bench.claim()
    assert taken is not None
    assert taken.last.record.unclean_to == end


async def test_what_ran_for_long_before_its_checkpoint_began_before_it(bench: Bench) -> None:
    at = await bench.left(Checkpoint(epoch=4, owner="gone", age=100.0))
    taken = await bench.claim()
    assert taken is not None
    assert taken.last.record.since == pytest.approx(at - 100.0 - timing.MARGIN, abs=0.001)


async def test_while_its_owner_is_alive_it_is_not_claimed(bench: Bench) -> None:
    other = await bench.crowd.start()
    await bench.left(Checkpoint(epoch=4, owner=other.id))
    claiming = asyncio.create_task(bench.claim())
    await other.renews(3)
    assert not claiming.done()
    assert (await bench.there()).owner == other.id
    await other.leases.stop()
    taken = await claiming
    assert taken is not None
    assert taken.last.record.epoch == 5


async def test_a_hint_ends_the_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "CLAIM_POLL", 3600.0)
    other = await bench.crowd.start()
    await bench.left(Checkpoint(epoch=4, owner=other.id))
    claiming = asyncio.create_task(bench.claim())
    await other.renews()
    await bench.left(Checkpoint(epoch=4, read_to=1))
    while not claiming.done():  # the first one may come before it waits
        bench.hint.set()
        await asyncio.sleep(0.01)
    assert await claiming is not None


async def test_who_does_not_want_it_any_more_leaves_it(bench: Bench) -> None:
    other = await bench.crowd.start()
    await bench.left(Checkpoint(epoch=4, owner=other.id))
    claiming = asyncio.create_task(bench.claim())
    await other.renews()
    bench.wanted = False
    bench.hint.set()
    assert await claiming is None


async def test_who_has_no_valid_lease_claims_nothing(bench: Bench) -> None:
    await bench.env.leases.stop()
    assert await bench.claim() is None
    assert await bench.there() == Checkpoint()


async def test_of_two_one_claims_it(bench: Bench) -> None:
    other = Bench(bench.crowd, await bench.crowd.start())
    claims = [asyncio.create_task(each.claim()) for each in (bench, other)]
    done, waiting = await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    (late,) = waiting
    await until(lambda: not late.done())
    bench.wanted = other.wanted = False
    assert await late is None


async def test_what_an_older_version_did_not_know_is_looked_at_at_once(bench: Bench) -> None:
    row = Open(next=7, why="failed", failed=3, retry_at=1e12, code="unknown_action")
    other = replace(row, code="unavailable")
    await bench.left(Checkpoint(epoch=4, read_to=9, open={"acme": row, "globex": other}))
    taken = await bench.claim()
    assert taken is not None
    assert taken.last.record.open["acme"].retry_at == 0
    assert taken.last.record.open["globex"] == other


async def test_a_journal_that_lost_its_end_gives_no_settled_sequence_out(bench: Bench) -> None:
    end = await bench.end()
    await bench.left(Checkpoint(epoch=4, read_to=end + 100))
    await bench.claim()
    assert await bench.end() > end + 100


async def test_a_journal_that_is_complete_is_left_alone(bench: Bench) -> None:
    end = await bench.end()
    await bench.left(Checkpoint(epoch=4, read_to=end))
    await bench.claim()
    assert await bench.end() == end + 1
