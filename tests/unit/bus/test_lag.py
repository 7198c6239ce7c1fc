"""How far services are behind, counted from checkpoints that the tests write."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tenantry import lag
from tenantry.backlog import Counter, Span
from tenantry.bus import Bucket, Bus
from tenantry.bus import jetstream as js
from tenantry.lag import PartitionLag, ServiceLag, TenantLag
from tenantry.messages.checkpoints import Checkpoint, Lease, Open
from tenantry.streams import (
    DeadLimits,
    JournalLimits,
    bucket_config,
    dead_config,
    journal_config,
)
from tenantry.subjects import partition
from tests.servers import NatsBackend
from tests.unit.bus.station import Station, fresh

MIB = 1024**2


@pytest.fixture
async def bus(own: NatsBackend) -> AsyncIterator[Bus]:
    async with Station(own) as station:
        bus = await station.connect()
        await js.ensure_stream(bus, journal_config(JournalLimits(max_bytes=64 * MIB)))
        await js.ensure_stream(bus, dead_config(DeadLimits(max_bytes=64 * MIB)))
        for name in ("checkpoints", "leases"):
            await js.ensure_stream(bus, bucket_config(name))
        yield bus


class Shop:
    """One service and one partition, with tenants in it."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.service = fresh("shop")
        self.acme = fresh("acme")
        self.partition = partition(self.acme)
        self.globex = self.neighbour()

    def neighbour(self) -> str:
        """Another tenant of the same partition."""
        return next(
            name for name in (fresh("t") for _ in iter(int, 1)) if partition(name) == self.partition
        )

    async def send(self, tenant: str, count: int = 1, action: str = "do") -> list[int]:
        """Store messages; returns their sequences."""
        subject = f"tenant.{tenant}.{self.service}.{action}"
        return [(await js.store(self.bus, subject, b"{}")).seq for _ in range(count)]

    async def checkpoint(self, read_to: int, **fields: object) -> None:
        """Write the checkpoint of the partition."""
        given = {"names": (f"{self.service}.do",), "read_to": read_to, **fields}
        record = Checkpoint(**given)  # type: ignore[arg-type]
        bucket = Bucket(self.bus, "checkpoints", Checkpoint)
        await bucket.put(f"{self.service}.{self.partition}", record)

    async def lease(self, name: str) -> None:
        record = Lease(service=self.service, version="1.0.0", renewed=1)
        await Bucket(self.bus, "leases", Lease).put(f"{self.service}.{name}", record)

    async def lag(self) -> ServiceLag:
        return next(each for each in await lag.services(self.bus) if each.service == self.service)

    async def part(self) -> PartitionLag:
        (found,) = (await self.lag()).partitions
        return found

    async def of(self, tenant: str) -> TenantLag:
        found = await lag.tenant(self.bus, tenant)
        return next(each for each in found if each.service == self.service)


@pytest.fixture
def shop(bus: Bus) -> Shop:
    return Shop(bus)


def figures(found: ServiceLag | PartitionLag) -> tuple[int, int, int]:
    return found.waiting, found.in_hand, found.sidelined


async def test_a_service_that_was_never_claimed_is_not_listed(shop: Shop) -> None:
    await shop.send(shop.acme)
    assert shop.service not in [each.service for each in await lag.services(shop.bus)]


async def test_a_service_that_has_read_everything_has_none(shop: Shop) -> None:
    (seq,) = await shop.send(shop.acme)
    await shop.checkpoint(seq)
    found = await shop.lag()
    assert (figures(found), found.oldest, found.dead) == ((0, 0, 0), None, 0)


async def test_messages_after_the_checkpoint_wait(shop: Shop) -> None:
    first, *_ = await shop.send(shop.acme, 3)
    await shop.checkpoint(first)
    assert figures(await shop.lag()) == (2, 0, 0)


async def test_messages_that_the_service_does_not_handle_do_not_wait(shop: Shop) -> None:
    (first,) = await shop.send(shop.acme)
    await shop.send(shop.acme, 2, action="other")
    await shop.checkpoint(first)
    assert figures(await shop.lag()) == (0, 0, 0)


async def test_the_oldest_that_waits_has_an_age(shop: Shop) -> None:
    seqs = await shop.send(shop.acme, 2)
    await shop.checkpoint(seqs[0])
    oldest = (await shop.lag()).oldest
    assert oldest is not None
    assert 0 <= oldest < 60


async def test_a_tenant_without_a_row_is_in_order(shop: Shop) -> None:
    seqs = await shop.send(shop.acme, 3)
    await shop.checkpoint(seqs[0])
    found = await shop.of(shop.acme)
    assert found == TenantLag(service=shop.service, waiting=2, dead=0)


async def test_messages_of_another_tenant_do_not_count_for_it(shop: Shop) -> None:
    (first,) = await shop.send(shop.acme)
    await shop.send(shop.globex, 3)
    await shop.checkpoint(first)
    assert (await shop.of(shop.acme)).waiting == 0


async def test_what_was_read_and_is_not_settled_is_in_hand(shop: Shop) -> None:
    seqs = await shop.send(shop.acme, 4)
    await shop.checkpoint(seqs[2], open={shop.acme: Open(next=seqs[1])})
    assert figures(await shop.lag()) == (1, 2, 0)
    found = await shop.of(shop.acme)
    assert (found.waiting, found.in_hand, found.sidelined) == (1, 2, "")


async def test_messages_of_a_sidelined_tenant_wait_from_its_first_unsettled_one(shop: Shop) -> None:
    seqs = await shop.send(shop.acme, 3)
    (last,) = await shop.send(shop.globex)
    await shop.send(shop.acme)
    row = Open(
        next=seqs[1],
        why="failed",
        failed=2,
        first_failed=1_000.0,
        retry_at=2_000.0,
        code="handler_failed",
    )
    await shop.checkpoint(last, open={shop.acme: row})
    assert figures(await shop.lag()) == (3, 0, 1)
    assert await shop.of(shop.acme) == TenantLag(
        service=shop.service,
        waiting=3,
        dead=0,
        sidelined="failed",
        failed=2,
        code="handler_failed",
        since=1_000.0,
        retry_at=2_000.0,
    )
    assert (await shop.of(shop.globex)).waiting == 0


async def test_a_sidelined_tenant_that_has_caught_up_waits_for_nothing(shop: Shop) -> None:
    (seq,) = await shop.send(shop.acme)
    await shop.checkpoint(seq, open={shop.acme: Open(next=seq + 1, why="backlog")})
    assert figures(await shop.lag()) == (0, 0, 1)


async def test_a_single_unordered_message_counts_once(shop: Shop) -> None:
    seqs = await shop.send(shop.acme, 3)
    name = f"{shop.service}.do"
    rows = {
        f"{shop.acme}#{seqs[0]}": Open(next=seqs[0], why="failed", failed=1),
        f"{shop.acme}#{seqs[1]}": Open(next=seqs[1]),
    }
    await shop.checkpoint(seqs[2], unordered={name: 0}, open=rows)
    assert figures(await shop.lag()) == (1, 1, 1)
    assert (await shop.lag()).oldest is not None
    assert (await shop.of(shop.acme)).sidelined == "failed"


async def test_many_unordered_messages_of_a_tenant_share_a_row(shop: Shop) -> None:
    seqs = await shop.send(shop.acme, 4)
    await shop.checkpoint(
        seqs[3],
        unordered={f"{shop.service}.do": 0},
        open={f"{shop.acme}#": Open(next=seqs[1], why="failed")},
    )
    assert figures(await shop.lag()) == (3, 0, 1)


async def test_an_action_is_ordered_up_to_where_it_became_unordered(shop: Shop) -> None:
    seqs = await shop.send(shop.acme, 4)
    await shop.checkpoint(
        seqs[3],
        unordered={f"{shop.service}.do": seqs[1]},
        open={shop.acme: Open(next=seqs[0], why="failed")},
    )
    assert figures(await shop.lag()) == (2, 0, 1)


async def test_the_floor_is_below_the_first_unsettled_message(shop: Shop) -> None:
    seqs = await shop.send(shop.acme, 3)
    await shop.checkpoint(seqs[2], open={shop.acme: Open(next=seqs[1])})
    found = await shop.part()
    assert (found.read_to, found.floor) == (seqs[2], seqs[1] - 1)


async def test_the_floor_of_a_settled_partition_is_where_it_was_read(shop: Shop) -> None:
    (seq,) = await shop.send(shop.acme)
    await shop.checkpoint(seq)
    assert (await shop.part()).floor == seq


async def test_the_owner_is_told_with_the_age_of_its_lease(shop: Shop) -> None:
    await shop.lease("one-abc")
    await shop.checkpoint(0, owner="one-abc")
    found = await shop.part()
    assert (found.partition, found.owner) == (shop.partition, "one-abc")
    assert found.renewed is not None
    assert (await shop.lag()).instances == 1


async def test_an_owner_whose_lease_is_gone_has_no_age(shop: Shop) -> None:
    await shop.checkpoint(0, owner="gone-abc")
    assert (await shop.part()).renewed is None
    assert (await shop.lag()).instances == 0


async def test_a_released_partition_has_no_owner(shop: Shop) -> None:
    await shop.checkpoint(0)
    assert (await shop.part()).owner == ""


async def test_dead_letters_count(shop: Shop) -> None:
    await shop.checkpoint(0)
    for seq in (1, 2):
        await js.store(shop.bus, f"dead.{shop.acme}.{shop.service}.{seq}", b"{}")
    assert (await shop.lag()).dead == 2
    assert (await shop.of(shop.acme)).dead == 2
    assert (await shop.of(shop.globex)).dead == 0


async def test_of_whom_most_waits_is_first(shop: Shop) -> None:
    ours = (shop.acme, shop.globex, shop.neighbour())
    await shop.checkpoint((await shop.send(ours[2]))[0])
    await shop.send(shop.acme, 8)
    await shop.send(shop.globex, 12)
    found = await lag.longest(shop.bus, 100)
    assert [name for name in found if name in ours] == [shop.globex, shop.acme]
    assert len(await lag.longest(shop.bus, 1)) == 1


async def test_no_tenant_at_all_is_asked_for(bus: Bus) -> None:
    assert await lag.tenants(bus, []) == {}


async def test_a_partition_that_is_not_read_to_its_end_costs_one_request_a_name(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tenants are in order."""
    asked = []
    span_of = Counter._span

    async def counted(self: Counter, stream: str, span: Span) -> object:
        asked.append(span.subject)
        return await span_of(self, stream, span)

    monkeypatch.setattr(Counter, "_span", counted)
    (first,) = await shop.send(shop.acme)
    for _ in range(20):
        await shop.send(shop.neighbour(), 2)
    await shop.checkpoint(first)
    assert (await shop.lag()).waiting == 40
    ours = [subject for subject in asked if shop.service in subject]
    assert sorted(ours) == [
        f"dead.*.{shop.service}.*",
        f"journal.{shop.partition}.*.{shop.service}.do",
    ]
