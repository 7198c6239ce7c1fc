"""The version before leaves consumers and cursors; this one goes on where they stand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import structlog

from tenantry import Context, Service
from tenantry.bus import Bucket, Bus, Message, api, store
from tenantry.bus import jetstream as js
from tenantry.delivery.upgrade import pending
from tenantry.messages import Checkpoint, Cursor, Open, Replay
from tenantry.operator import OperatorHome
from tenantry.runtime.config import MeshConfig
from tenantry.subjects import partition
from tenantry_workers.tenants import TenantsWorker, upgrade
from tenantry_workers.tenants.provision import provision
from tenantry_workers.tenants.upgrade import Row, Upgrade
from tests.former import consumer_config
from tests.mesh import Mesh, eventually, root_creds
from tests.servers import NatsServers
from tests.services import Note

ACME = "acme"
PART = partition(ACME)
PLACE = ("orders", "place")


@pytest.fixture(scope="module")
def home(nats_backend: NatsServers) -> tuple[str, OperatorHome]:
    backend = nats_backend(OperatorHome.create)
    return backend.url, OperatorHome.load(backend.home)


@pytest.fixture
async def bus(home: tuple[str, OperatorHome]) -> AsyncIterator[Bus]:
    """Streams without anything in them, with the rights of the root."""
    url, operator = home
    async with await Bus.connect(url, creds=root_creds(operator, operator.path)) as bus:
        await provision(bus, MeshConfig())
        yield bus
        for name in ("JOURNAL", "KV_checkpoints", "KV_cursors", "KV_replays"):
            await api(bus, f"STREAM.DELETE.{name}")


@pytest.fixture
async def control(home: tuple[str, OperatorHome], bus: Bus) -> AsyncIterator[Bus]:
    """The tenants worker's connection."""
    url, operator = home
    async with await Bus.connect(url, creds=operator.creds_path("control")) as control:
        yield control


async def leave_consumer(bus: Bus, *, acknowledged: int, delivered: int, **options: Any) -> None:
    """A consumer of the version before that has read so much of the journal."""
    config = consumer_config("orders", PART, PLACE, **options)
    await js.ensure_consumer(bus, "JOURNAL", config)
    for message in (await pull(bus, f"orders-{PART}", delivered))[:acknowledged]:
        await bus.call(message.reply, b"+ACK")


async def pull(bus: Bus, consumer: str, count: int, *, dies: bool = False) -> list[Message]:
    """Read as a pinned reader does, and give the pin up unless it `dies`."""
    messages: list[Message] = []

    async def hear(message: Message) -> None:
        messages.append(message)

    if count:
        inbox = await bus.subscribe(f"{bus.inbox}.pull.1", hear)
        ask = {"batch": count, "expires": 5_000_000_000, "group": "lane"}
        path = f"CONSUMER.MSG.NEXT.JOURNAL.{consumer}"
        await bus.publish(f"$JS.API.{path}", msgspec.json.encode(ask), reply=inbox.subject)

        async def came() -> bool:
            return len(messages) == count

        await eventually(came)
        await inbox.stop()
        if not dies:
            await api(bus, f"CONSUMER.UNPIN.JOURNAL.{consumer}", {"group": "lane"})
    return messages


async def send(bus: Bus, count: int, tenant: str = ACME) -> None:
    for _ in range(count):
        await store(bus, f"tenant.{tenant}.orders.place", b"{}")


async def leave_row(bus: Bus, row: Row, tenant: str = ACME) -> None:
    await store(bus, f"$KV.cursors.orders.{tenant}", msgspec.json.encode(row))


async def row_of(bus: Bus, tenant: str = ACME) -> dict[str, Any] | None:
    """The row in `cursors`, with whatever fields it has."""
    entry = await Bucket(bus, "cursors", dict[str, Any]).get(f"orders.{tenant}")
    return entry.value if entry is not None else None


async def upgraded(control: Bus) -> None:
    """Upgrade until no consumer of the version before is left."""
    worker = Upgrade(control)
    while await worker.look():
        pass


async def checkpoint(bus: Bus) -> Checkpoint:
    entry = await Bucket(bus, "checkpoints", Checkpoint).get(f"orders.{PART}")
    assert entry is not None
    return entry.value


async def consumers(bus: Bus) -> list[str]:
    page = await api(bus, "CONSUMER.LIST.JOURNAL")
    return [each["name"] for each in page.get("consumers") or []]


async def test_a_service_goes_on_where_its_consumer_stood(bus: Bus, control: Bus) -> None:
    await send(bus, 5)
    await leave_consumer(bus, acknowledged=2, delivered=3)
    await upgraded(control)
    found = await checkpoint(bus)
    assert (found.read_to, found.owner, found.epoch) == (2, "", 0)
    assert (found.version, found.names) == ("1.2.3", ("orders.place",))


async def test_a_service_that_had_read_nothing_begins_at_the_start(bus: Bus, control: Bus) -> None:
    await send(bus, 2)
    await leave_consumer(bus, acknowledged=0, delivered=0)
    await upgraded(control)
    assert (await checkpoint(bus)).read_to == 0


async def test_what_was_unordered_stays_so_from_the_same_place(bus: Bus, control: Bus) -> None:
    await leave_consumer(bus, acknowledged=0, delivered=0, unordered="orders.place", mark=7)
    await upgraded(control)
    assert (await checkpoint(bus)).unordered == {"orders.place": 7}


async def test_the_consumers_are_gone(bus: Bus, control: Bus) -> None:
    await leave_consumer(bus, acknowledged=0, delivered=0)
    read = {"name": f"orders-read-{PART}", "durable_name": f"orders-read-{PART}"}
    await js.ensure_consumer(bus, "JOURNAL", {**read, "filter_subjects": [f"journal.{PART}.>"]})
    await upgraded(control)
    assert await consumers(bus) == []


async def test_a_consumer_of_another_kind_stays(bus: Bus, control: Bus) -> None:
    config = {"name": "mine-3", "durable_name": "mine-3", "filter_subjects": ["journal.>"]}
    await js.ensure_consumer(bus, "JOURNAL", config)
    await upgraded(control)
    assert await consumers(bus) == ["mine-3"]


async def test_a_tenant_that_waits_for_a_retry_keeps_its_count_and_code(
    bus: Bus, control: Bus
) -> None:
    await send(bus, 4)
    await leave_consumer(bus, acknowledged=3, delivered=3)
    at = time.time()
    row = Row(next=2, since=2, behind=True, failed=2, first_failed=at, retry_at=at, code="oops")
    await leave_row(bus, row)
    await upgraded(control)
    wanted = Open(next=2, why="failed", failed=2, first_failed=at, retry_at=at, code="oops")
    assert (await checkpoint(bus)).open == {ACME: wanted}


async def test_what_a_tenant_ahead_of_the_others_has_settled_does_not_run_again(
    bus: Bus, control: Bus
) -> None:
    others = (f"t{number}" for number in range(1_000))
    other = next(name for name in others if partition(name) == PART)
    for tenant in (other, ACME, other, ACME):
        await send(bus, 1, tenant)
    await leave_consumer(bus, acknowledged=0, delivered=2)
    await leave_row(bus, Row(next=4, since=2, behind=True, failed=1))
    await upgraded(control)
    found = await checkpoint(bus)
    assert found.read_to == 3
    assert found.open == {ACME: Open(next=4, why="failed", failed=1), other: Open(next=1)}


async def test_a_tenant_of_another_partition_is_not_in_the_checkpoint(
    bus: Bus, control: Bus
) -> None:
    other = next(name for name in ("a", "b", "c") if partition(name) != PART)
    await leave_consumer(bus, acknowledged=0, delivered=0)
    await leave_row(bus, Row(next=2, behind=True), other)
    await upgraded(control)
    assert (await checkpoint(bus)).open == {}


async def test_a_tenant_that_is_replayed_waits_for_its_replay(bus: Bus, control: Bus) -> None:
    await leave_consumer(bus, acknowledged=0, delivered=0)
    await leave_row(bus, Row(next=2, behind=True, epoch=1))
    replay = Replay(id="r", tenant=ACME, service="orders", asked=1.0, state="running")
    await Bucket(bus, "replays", Replay).put(f"orders.{ACME}", replay)
    await upgraded(control)
    assert (await checkpoint(bus)).open == {ACME: Open(next=2, why="replay")}


async def test_a_row_keeps_nothing_but_which_state_is_live(bus: Bus, control: Bus) -> None:
    await leave_consumer(bus, acknowledged=0, delivered=0)
    await leave_row(bus, Row(next=2, since=2, behind=True, epoch=3, generation=1, former=0))
    await upgraded(control)
    assert await row_of(bus) == {"epoch": 3, "generation": 1, "former": 0}


async def test_a_row_that_says_nothing_more_is_deleted(bus: Bus, control: Bus) -> None:
    await leave_consumer(bus, acknowledged=0, delivered=0)
    await leave_row(bus, Row(next=2, since=2, behind=True, failed=1))
    await upgraded(control)
    assert await row_of(bus) is None


# who else is there


async def test_a_consumer_is_left_alone_while_somebody_reads(bus: Bus, control: Bus) -> None:
    await leave_consumer(bus, acknowledged=0, delivered=0)
    await leave_row(bus, Row(next=2, behind=True))
    reading = asyncio.create_task(read(bus))
    await eventually(lambda: is_read(bus))
    worker = Upgrade(control)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert await worker.look() == 1
    warnings = [each for each in logs if each["log_level"] == "warning"]
    assert [each["services"] for each in warnings] == [["orders"]]
    assert "stop them" in warnings[0]["hint"]
    assert await consumers(bus) == [f"orders-{PART}"]
    assert await row_of(bus) is not None
    assert await pending(bus, "orders", PART)
    reading.cancel()
    await asyncio.wait({reading})


async def read(bus: Bus) -> None:
    """Read as a worker of the version before does, until cancelled."""
    path = f"$JS.API.CONSUMER.MSG.NEXT.JOURNAL.orders-{PART}"
    ask = msgspec.json.encode({"batch": 1, "expires": 60_000_000_000, "group": "lane"})
    await bus.call(path, ask, timeout=60)


async def is_read(bus: Bus) -> bool:
    info = await api(bus, f"CONSUMER.INFO.JOURNAL.orders-{PART}")
    return bool(info["num_waiting"])


async def test_a_worker_that_died_is_not_waited_for_longer_than_its_pin(
    bus: Bus, control: Bus
) -> None:
    await send(bus, 1)
    await js.ensure_consumer(bus, "JOURNAL", consumer_config("orders", PART, PLACE, pin=1.0))
    await pull(bus, f"orders-{PART}", 1, dies=True)
    worker = Upgrade(control)
    for _ in range(3):
        assert await worker.look() == 1
    assert await consumers(bus) == [f"orders-{PART}"]

    async def done() -> bool:
        return await worker.look() == 0

    await eventually(done)
    assert (await checkpoint(bus)).read_to == 0


async def test_two_tenants_workers_upgrade_at_once(bus: Bus, control: Bus) -> None:
    await send(bus, 3)
    await leave_consumer(bus, acknowledged=2, delivered=3)
    await leave_row(bus, Row(next=3, behind=True, failed=1, epoch=1))
    await asyncio.gather(*(upgraded(control) for _ in range(4)))
    found = await checkpoint(bus)
    assert (found.read_to, found.open) == (2, {ACME: Open(next=3, why="failed", failed=1)})
    assert await row_of(bus) == {"epoch": 1, "generation": 0, "former": None}


async def test_an_upgrade_that_was_cut_off_goes_on_at_the_next_start(
    bus: Bus, control: Bus
) -> None:
    """It had written the checkpoint, and an owner has gone on from it since."""
    await leave_consumer(bus, acknowledged=0, delivered=0)
    await leave_row(bus, Row(next=2, behind=True, epoch=1))
    claimed = Checkpoint(epoch=1, owner="one", read_to=9)
    await Bucket(bus, "checkpoints", Checkpoint).put(f"orders.{PART}", claimed)
    await upgraded(control)
    assert await checkpoint(bus) == claimed
    assert await consumers(bus) == []
    assert await row_of(bus) == {"epoch": 1, "generation": 0, "former": None}


async def test_rows_are_rewritten_at_the_next_start_where_only_that_was_left(
    bus: Bus, control: Bus
) -> None:
    await leave_row(bus, Row(next=2, behind=True, epoch=1))
    await Bucket(bus, "checkpoints", Checkpoint).put(f"orders.{PART}", Checkpoint(epoch=1))
    await upgraded(control)
    assert await row_of(bus) == {"epoch": 1, "generation": 0, "former": None}


async def test_a_row_without_a_checkpoint_is_left_as_it_is(bus: Bus, control: Bus) -> None:
    await leave_row(bus, Row(next=2, behind=True, epoch=1))
    await upgraded(control)
    assert (await row_of(bus) or {})["next"] == 2


# who waits for it


async def test_a_partition_is_pending_until_its_checkpoint_is_there(bus: Bus) -> None:
    await leave_consumer(bus, acknowledged=0, delivered=0)
    assert await pending(bus, "orders", PART)
    await Bucket(bus, "checkpoints", Checkpoint).put(f"orders.{PART}", Checkpoint())
    assert not await pending(bus, "orders", PART)


async def test_a_partition_without_a_consumer_is_not_pending(bus: Bus) -> None:
    assert not await pending(bus, "orders", PART)


async def test_a_service_may_ask_whether_it_is_pending(
    home: tuple[str, OperatorHome], bus: Bus
) -> None:
    url, operator = home
    await leave_consumer(bus, acknowledged=0, delivered=0)
    async with await Bus.connect(url, creds=operator.service_creds(["orders"])) as service:
        assert await pending(service, "orders", PART)


# all of it


async def test_a_service_is_upgraded_while_it_and_the_tenants_worker_start(
    own_mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one tenant two of four were settled, another waits for its third try."""
    monkeypatch.setattr(upgrade, "_LOOK", 0.1)
    handled: list[tuple[str, str, int]] = []
    goes = Service("goes", version="1.0.0")

    @goes.command("write", public=True)
    async def write(ctx: Context, note: Note) -> None:
        """Note who wrote what, and the number of the try."""
        handled.append((ctx.tenant, note.text, ctx.attempt))

    worker = own_mesh.start(own_mesh.worker(goes))
    async with own_mesh.neighbours() as (one, two), await own_mesh.insider("root") as root:
        await one.client.publish("goes.write", {"text": "known"})
        await eventually(lambda: _has(handled, 1))
        handled.clear()
        await worker.stop()
        await own_mesh.running[0].stop()  # the tenants worker
        await api(root, "STREAM.PURGE.KV_checkpoints")
        place = partition(one.id)
        config = consumer_config("goes", place, ("goes", "write"))
        await js.ensure_consumer(root, "JOURNAL", config)
        texts = [*(f"{number}" for number in range(4))]
        for text in texts:
            await one.client.publish("goes.write", {"text": text})
        for text in texts[:2]:
            await two.client.publish("goes.write", {"text": text})
        messages = await pull(root, f"goes-{place}", 7)
        for message in messages[:3] + messages[5:]:  # "known", "0" and "1"; all of the other
            await root.call(message.reply, b"+ACK")
        failed = js.Delivery.of(messages[5]).seq
        at = time.time()
        row = Row(
            next=failed, since=failed, behind=True, failed=2, first_failed=at, retry_at=at, code="x"
        )
        await store(root, f"$KV.cursors.goes.{two.id}", msgspec.json.encode(row))
        own_mesh.start(own_mesh.worker(goes))
        own_mesh.start(TenantsWorker(own_mesh.options()))
        await eventually(lambda: _has(handled, 4))
        await one.client.publish("goes.write", {"text": "last"})
        await eventually(lambda: _has(handled, 5))
        of_one = [each[1:] for each in handled if each[0] == one.id]
        of_two = [each[1:] for each in handled if each[0] == two.id]
        assert of_one == [("2", 1), ("3", 1), ("last", 1)]
        assert of_two == [("0", 3), ("1", 1)]
        assert await Bucket(root, "cursors", Cursor).get(f"goes.{two.id}") is None
        assert f"goes-{place}" not in await consumers(root)


async def _has(handled: list[Any], count: int) -> bool:
    return len(handled) >= count
