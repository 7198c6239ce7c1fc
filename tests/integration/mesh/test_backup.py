"""Backup and restore of all streams, on servers of their own."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenantry.bus import Bucket, Bus, Message, api, snapshot, store
from tenantry.bus import jetstream as js
from tenantry.bus.scan import find_last
from tenantry.errors import Conflict, JetStreamError, NotFound, SetupError, Unavailable
from tenantry.journal import backup, restore
from tenantry.journal.backup import Manifest, StreamFile
from tenantry.messages import Checkpoint
from tenantry.operator import OperatorHome
from tenantry.runtime.config import MeshConfig
from tenantry_workers.tenants.provision import provision
from tests.mesh import eventually, root_creds
from tests.servers import NatsBackend, NatsServers

COUNT = 3_000


@pytest.fixture
def server(nats_backend: NatsServers) -> NatsBackend:
    return nats_backend(OperatorHome.create)


@pytest.fixture
def empty(nats_backend: NatsServers) -> NatsBackend:
    return nats_backend(OperatorHome.create)


async def connect(backend: NatsBackend) -> Bus:
    creds = root_creds(OperatorHome.load(backend.home), backend.home)
    return await Bus.connect(backend.url, creds=creds)


@pytest.fixture
async def bus(server: NatsBackend) -> AsyncIterator[Bus]:
    """A mesh's streams, with messages, values and a consumer that has read a part of them."""
    async with await connect(server) as bus:
        await provision(bus, MeshConfig())
        asked = [
            await js.begin_store(bus, f"tenant.t{number % 7}.archive.note", os.urandom(1_000))
            for number in range(COUNT)
        ]
        await asyncio.gather(*asked)
        for number in range(5):
            await store(bus, f"dead.t1.archive.{number}", b"x")
            await store(bus, "$KV.state.t1.archive.total", b"%d" % number)
        await api(bus, "STREAM.MSG.DELETE.JOURNAL", {"seq": 5})
        config = {"name": "lane", "durable_name": "lane", "ack_policy": "all"}
        await js.ensure_consumer(bus, "JOURNAL", config)
        messages: list[Message] = []

        async def hear(message: Message) -> None:
            messages.append(message)

        subscription = await bus.subscribe(f"{bus.inbox}.lane.1", hear)
        ask = msgspec.json.encode({"batch": 1_000, "no_wait": True})
        path = "$JS.API.CONSUMER.MSG.NEXT.JOURNAL.lane"
        await bus.publish(path, ask, reply=f"{bus.inbox}.lane.1")

        async def all_here() -> bool:
            return len(messages) == 1_000

        await eventually(all_here)
        await subscription.stop()
        await bus.call(messages[-1].reply, b"+ACK")
        yield bus


@pytest.fixture
async def target(empty: NatsBackend) -> AsyncIterator[Bus]:
    async with await connect(empty) as bus:
        yield bus


async def take(bus: Bus, folder: Path) -> Manifest:
    return await backup.take(bus, folder, version="test")


async def content(bus: Bus, stream: str) -> list[Any]:
    """All messages, without how many come after each."""
    found = await js.get_batch(bus, stream, batch=10_000, max_bytes=100_000_000)
    return [each[:-1] for each in found]


async def test_what_comes_back_is_what_was_there(bus: Bus, target: Bus, tmp_path: Path) -> None:
    manifest = await take(bus, tmp_path / "b")
    done = await restore.restore(target, tmp_path / "b", backup.check(tmp_path / "b"))
    assert {each.name for each in done} == {each.name for each in manifest.streams}
    for stream in ("JOURNAL", "DEAD", "KV_state", "KV_plans"):
        assert await content(target, stream) == await content(bus, stream)


async def test_consumers_go_on_where_they_stood(bus: Bus, target: Bus, tmp_path: Path) -> None:
    await take(bus, tmp_path / "b")
    await restore.restore(target, tmp_path / "b", backup.check(tmp_path / "b"))
    before = await api(bus, "CONSUMER.INFO.JOURNAL.lane")
    after = await api(target, "CONSUMER.INFO.JOURNAL.lane")
    assert before["ack_floor"]["consumer_seq"] == 1_000
    for field in ("ack_floor", "num_pending", "num_ack_pending", "config"):
        left, right = before[field], after[field]
        if field == "ack_floor":
            left, right = left["stream_seq"], right["stream_seq"]
        assert left == right


async def test_what_goes_on_meanwhile_does_not_disturb(
    bus: Bus, target: Bus, tmp_path: Path
) -> None:
    stopped = False

    async def send() -> int:
        count = 0
        while not stopped:
            await store(bus, "tenant.t9.archive.note", os.urandom(5_000))
            count += 1
        return count

    sending = asyncio.create_task(send())
    manifest = await take(bus, tmp_path / "b")
    stopped = True
    assert await sending > 0
    done = await restore.restore(target, tmp_path / "b", backup.check(tmp_path / "b"))
    journal = next(each for each in done if each.name == "JOURNAL")
    wanted = _journal(manifest)
    assert journal.messages == wanted.messages >= COUNT - 1
    restored = await content(target, "JOURNAL")
    assert wanted.reached >= journal.last_seq
    await store(target, "tenant.t9.archive.note", b"after")
    assert await find_last(target, "JOURNAL", "journal.*.t9.archive.note") > wanted.reached
    assert restored == (await content(bus, "JOURNAL"))[: len(restored)]


async def test_a_checkpoint_is_older_than_the_journal_beside_it(
    bus: Bus, target: Bus, tmp_path: Path
) -> None:
    checkpoints, stopped = Bucket(bus, "checkpoints", Checkpoint), False

    async def settle() -> None:
        while not stopped:
            ack = await store(bus, "tenant.t9.archive.note", os.urandom(5_000))
            await checkpoints.put("archive.3", Checkpoint(read_to=ack.seq))

    settling = asyncio.create_task(settle())
    await eventually(lambda: _is_written(checkpoints))
    manifest = await take(bus, tmp_path / "b")
    stopped = True
    await settling
    await restore.restore(target, tmp_path / "b", manifest)
    entry = await Bucket(target, "checkpoints", Checkpoint).get("archive.3")
    assert entry is not None
    assert COUNT < entry.value.read_to <= _journal(manifest).state["last_seq"]


async def _is_written(checkpoints: Bucket[Checkpoint]) -> bool:
    return await checkpoints.get("archive.3") is not None


async def test_a_restored_checkpoint_says_how_old_it_is(
    bus: Bus, target: Bus, tmp_path: Path
) -> None:
    written = Checkpoint(epoch=3, owner="archive-1", read_to=7, age=0.5)
    await Bucket(bus, "checkpoints", Checkpoint).put("archive.3", written)
    manifest = await take(bus, tmp_path / "b")
    saved = manifest.checkpoints["archive.3"]
    later = msgspec.structs.replace(saved, time=saved.time - 1_000)
    await restore.restore(
        target,
        tmp_path / "b",
        msgspec.structs.replace(manifest, checkpoints={"archive.3": later}),
    )
    entry = await Bucket(target, "checkpoints", Checkpoint).get("archive.3")
    assert entry is not None
    assert entry.value.age > 1_000
    assert msgspec.structs.replace(entry.value, age=0.5) == written


async def test_a_backup_without_checkpoints_is_restored(
    bus: Bus, target: Bus, tmp_path: Path
) -> None:
    """The version before has made it."""
    await take(bus, tmp_path / "b")
    path = tmp_path / "b" / "manifest.json"
    older = msgspec.json.decode(path.read_bytes()) | {"version": 1}
    del older["checkpoints"]
    path.write_bytes(msgspec.json.encode(older))
    await restore.restore(target, tmp_path / "b", backup.check(tmp_path / "b"))
    assert await content(target, "JOURNAL") == await content(bus, "JOURNAL")


async def test_leases_are_not_in_a_backup(bus: Bus, target: Bus, tmp_path: Path) -> None:
    await store(bus, "$KV.leases.archive.one", b"{}")
    await restore.restore(target, tmp_path / "b", await take(bus, tmp_path / "b"))
    await provision(target, MeshConfig())
    assert await content(target, "KV_leases") == []


async def test_a_backup_is_for_its_owner_alone(bus: Bus, tmp_path: Path) -> None:
    await take(bus, tmp_path / "b")
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "b.part").exists()


async def test_a_folder_is_not_written_over(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(SetupError, match="exists already"):
        await take(bus, tmp_path / "b")


async def test_what_a_killed_backup_left_is_begun_anew(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "b.part").mkdir()
    (tmp_path / "b.part" / "JOURNAL.snapshot").write_bytes(b"half")
    await take(bus, tmp_path / "b")
    backup.check(tmp_path / "b")


async def test_what_is_somebody_elses_is_left_alone(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "b.part").mkdir()
    (tmp_path / "b.part" / "thesis.tex").write_text("precious")
    with pytest.raises(SetupError, match=r"in the way: it holds thesis\.tex"):
        await take(bus, tmp_path / "b")


async def test_a_server_without_a_journal_is_told(target: Bus, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no journal"):
        await take(target, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


async def test_a_lost_connection_leaves_no_backup(
    server: NatsBackend, bus: Bus, tmp_path: Path
) -> None:
    def kill(_: int) -> None:
        if not killed:
            killed.append(True)
            server.kill()
            server.start()

    killed: list[bool] = []
    with pytest.raises((Unavailable, JetStreamError)):
        await backup.take(bus, tmp_path / "b", version="test", tell=kill)
    assert list(tmp_path.iterdir()) == []
    await take(bus, tmp_path / "b")


async def test_a_full_disk_leaves_no_backup(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(SetupError, match="No space left"):
        await backup.take(bus, tmp_path / "b", version="test", tell=full)
    assert list(tmp_path.iterdir()) == []


async def test_a_part_that_was_lost_is_noticed(bus: Bus) -> None:
    taken = snapshot.Snapshot(bus, "X", lambda _: None)
    await bus.subscribe("lossy", taken._receive)
    for number in (1, 3):
        await bus.publish("lossy", b"x", reply=f"ack.{number}")
    with pytest.raises(Unavailable, match="was lost"):
        await taken.end()


async def test_a_server_that_gives_up_is_heard(bus: Bus) -> None:
    taken = snapshot.Snapshot(bus, "X", lambda _: None)
    await bus.subscribe("weary", taken._receive)
    await bus.publish("weary", headers={"Status": "408", "Description": "No Flow Response"})
    with pytest.raises(JetStreamError, match="No Flow Response"):
        await taken.end()


# restoring


def _cut(folder: Path) -> None:
    path = folder / "JOURNAL.snapshot"
    path.write_bytes(path.read_bytes()[:-1_000])


def _alter(folder: Path) -> None:
    path = folder / "JOURNAL.snapshot"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _edit(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_cut, "bytes instead of"),
        (_alter, "was altered"),
        (lambda folder: (folder / "DEAD.snapshot").unlink(), "can't be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "no manifest"),
        (_edit("tenantry-backup", "another"), "no manifest"),
        (_edit('"version": 2', '"version": 3'), "version 3"),
        (_edit('"name": "DEAD"', '"name": "../DEAD"'), "names no stream"),
        (_edit('"last_seq"', '"lost_seq"'), "does not say"),
    ],
)
async def test_a_broken_backup_is_refused(
    bus: Bus, tmp_path: Path, change: Callable[[Path], Any], why: str
) -> None:
    await take(bus, tmp_path / "b")
    backup.check(tmp_path / "b")
    change(tmp_path / "b")
    with pytest.raises(SetupError, match=why):
        backup.check(tmp_path / "b")


async def test_streams_that_are_there_are_not_touched(bus: Bus, tmp_path: Path) -> None:
    manifest = await take(bus, tmp_path / "b")
    before = await content(bus, "JOURNAL")
    with pytest.raises(Conflict, match="has streams already: JOURNAL"):
        await restore.restore(bus, tmp_path / "b", manifest)
    assert await content(bus, "JOURNAL") == before


async def test_streams_that_are_there_are_replaced(bus: Bus, tmp_path: Path) -> None:
    manifest = await take(bus, tmp_path / "b")
    before = await content(bus, "JOURNAL")
    await store(bus, "tenant.t1.archive.note", b"later")
    await restore.restore(bus, tmp_path / "b", manifest, replace=True)
    assert await content(bus, "JOURNAL") == before


@pytest.mark.parametrize("bucket", ["checkpoints", "leases"])
async def test_what_speaks_of_another_journal_is_deleted(
    bus: Bus, target: Bus, tmp_path: Path, bucket: str
) -> None:
    manifest = await take(bus, tmp_path / "b")
    await provision(target, MeshConfig())
    await store(target, f"$KV.{bucket}.archive.3", b"{}")
    await restore.restore(target, tmp_path / "b", manifest, replace=True)
    await provision(target, MeshConfig())
    assert await content(target, f"KV_{bucket}") == []


async def test_half_a_restore_is_said_and_begun_anew(bus: Bus, target: Bus, tmp_path: Path) -> None:
    manifest = await take(bus, tmp_path / "b")
    good = (tmp_path / "b" / "JOURNAL.snapshot").read_bytes()
    _alter(tmp_path / "b")
    with pytest.raises(JetStreamError, match="restore failed") as caught:
        await restore.restore(target, tmp_path / "b", manifest)
    assert "not whole" in caught.value.hint
    assert await restore.existing(target, manifest) == []
    with pytest.raises(SetupError, match="interrupted"):
        await provision(target, MeshConfig())
    (tmp_path / "b" / "JOURNAL.snapshot").write_bytes(good)
    await restore.restore(target, tmp_path / "b", manifest)
    await provision(target, MeshConfig())
    assert await content(target, "JOURNAL") == await content(bus, "JOURNAL")


async def test_an_interrupted_restore_goes_on_without_being_told_to_replace(
    bus: Bus, target: Bus, tmp_path: Path
) -> None:
    manifest = await take(bus, tmp_path / "b")

    def stop(sent: int) -> None:
        if sent > _journal(manifest).bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await restore.restore(target, tmp_path / "b", manifest, tell=stop)
    assert await restore.unfinished(target)
    assert await restore.existing(target, manifest) != []
    await restore.restore(target, tmp_path / "b", manifest)
    assert not await restore.unfinished(target)


async def test_what_expired_meanwhile_is_counted(bus: Bus, target: Bus, tmp_path: Path) -> None:
    await store(bus, "tenant.t1.archive.note", b"short", headers={"Nats-TTL": "1s"})
    await store(bus, "tenant.t1.archive.note", b"last")
    manifest = await take(bus, tmp_path / "b")
    await asyncio.sleep(1.1)  # the time that the message has to live
    done = await restore.restore(target, tmp_path / "b", manifest)
    journal = next(each for each in done if each.name == "JOURNAL")
    wanted = _journal(manifest)
    assert journal.messages + journal.expired == wanted.messages
    assert journal.last_seq == wanted.state["last_seq"]


async def test_what_fell_due_meanwhile_comes_after_the_restore(
    bus: Bus, target: Bus, tmp_path: Path
) -> None:
    config = {
        "name": "TIMERS",
        "subjects": ["timer.*.*.*", "due.*.*.*"],
        "retention": "workqueue",
        "allow_msg_schedules": True,
        "allow_msg_ttl": True,
    }
    await js.ensure_stream(bus, config)
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    due = {"soon": now + dt.timedelta(seconds=4), "later": now + dt.timedelta(hours=1)}
    for name, at in due.items():
        told = at.isoformat().replace("+00:00", "Z")
        fields = {"Nats-Schedule": f"@at {told}", "Nats-Schedule-Target": f"due.t1.a.{name}"}
        await store(bus, f"timer.t1.a.{name}", b"x", headers=fields)
    manifest = await take(bus, tmp_path / "b")
    assert await find_last(bus, "TIMERS", "timer.t1.a.soon") > 0  # it waits in the backup
    await asyncio.sleep((due["soon"] - dt.datetime.now(dt.UTC)).total_seconds() + 0.5)
    await restore.restore(target, tmp_path / "b", manifest)

    async def came() -> bool:
        return await find_last(target, "TIMERS", "due.t1.a.soon") > 0

    await eventually(came)
    assert await find_last(target, "TIMERS", "timer.t1.a.later") > 0
    assert await find_last(target, "TIMERS", "due.t1.a.later") == 0


async def test_sequences_that_the_rest_speaks_of_are_not_given_out_again(
    bus: Bus, target: Bus, tmp_path: Path
) -> None:
    info = await api(bus, "STREAM.INFO.JOURNAL")
    full = {**info["config"], "max_bytes": info["state"]["bytes"] + 10}
    await api(bus, "STREAM.UPDATE.JOURNAL", full)
    manifest = _wish(await take(bus, tmp_path / "b"), reached=COUNT + 1_234)
    await restore.restore(target, tmp_path / "b", manifest)
    assert await content(target, "JOURNAL") == await content(bus, "JOURNAL")
    state = await api(target, "STREAM.INFO.JOURNAL")
    assert state["config"]["max_bytes"] == full["max_bytes"]
    assert state["state"]["last_seq"] == COUNT + 1_234
    with pytest.raises(JetStreamError, match="maximum bytes"):
        await store(target, "tenant.t1.archive.note", bytes(1_000))


def _journal(manifest: Manifest) -> StreamFile:
    return next(each for each in manifest.streams if each.name == "JOURNAL")


def _wish(manifest: Manifest, **changes: Any) -> Manifest:
    """The same manifest, with something else in the journal."""
    streams = (
        msgspec.structs.replace(each, **changes) if each.name == "JOURNAL" else each
        for each in manifest.streams
    )
    return msgspec.structs.replace(manifest, streams=tuple(streams))


async def test_what_did_not_come_back_is_told(
    bus: Bus, target: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "_PATIENCE", 0.0)
    manifest = await take(bus, tmp_path / "b")
    assert manifest.server.count(".") == 2
    consumers = (*_journal(manifest).consumers, backup.ConsumerAt(name="gone", acknowledged=0))
    with pytest.raises(Conflict, match="the consumer gone of JOURNAL did not come back"):
        await restore.restore(target, tmp_path / "b", _wish(manifest, consumers=consumers))
    config = {**_journal(manifest).config, "allow_msg_ttl": False}
    state = {**_journal(manifest).state, "messages": COUNT}  # one was deleted before
    wrong = _wish(manifest, state=state, config=config)
    with pytest.raises(Conflict, match=f"with {COUNT - 1} messages up to {COUNT}, instead of"):
        await restore.restore(target, tmp_path / "b", wrong)
    assert await restore.unfinished(target)


async def test_workers_that_run_are_named(bus: Bus) -> None:
    await restore.check_quiet(bus)

    async def pong(ask: Any) -> None:
        await bus.publish(ask.reply, b'{"name": "orders"}')

    await bus.subscribe("$SRV.PING", pong)
    with pytest.raises(Conflict, match="workers run: orders"):
        await restore.check_quiet(bus)
