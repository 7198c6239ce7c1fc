"""A replica of the state that lags behind makes no message lose what another has written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tenantry import Context
from tenantry.bus import Bucket, Bus
from tenantry.bus.jetstream import StoredMessage
from tenantry.bus.kv import Record
from tenantry.context import latest, state
from tenantry.context.latest import Latest, Seen
from tenantry.errors import Conflict, JetStreamError, Repeated, Unavailable
from tenantry.runtime import effects, progress
from tests.unit.core.fences import fence
from tests.unit.state.handling import Crash, Handling
from tests.unit.state.lagging import Lag

MINE, NEXT = object(), object()
"""Two claims of a partition."""


@pytest.fixture
async def handling(bus: Bus) -> Handling:
    """An instance that takes its bucket for replicated."""
    handling = await Handling.make(bus)
    handling.bucket._replicated = True
    return handling


@pytest.fixture
def lag(monkeypatch: pytest.MonkeyPatch) -> Lag:
    return Lag(monkeypatch)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait hardly at all for what does not come."""
    for owner, names in ((latest, ("_PATIENCE", "_STEP")), (state, ("_PAUSE",))):
        for name in names:
            monkeypatch.setattr(owner, name, 0.001)
    monkeypatch.setattr(progress, "_PAUSE", 0.001)


class Renewals:
    """The keys that are written anew as they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
        self.keys: list[str] = []
        left, renew = list(errors), Latest.renew

        async def noted(bucket: Latest, key: str, *rest: Any) -> None:
            self.keys.append(key)
            await renew(bucket, key, *rest)
            if left:
                raise left.pop()

        monkeypatch.setattr(Latest, "renew", noted)


async def old(handling: Handling, name: str = "count") -> Record | None:
    """What a name holds, to be served when it holds something else."""
    return await handling.record(name)


# what an instance has written itself


async def test_an_instance_reads_nothing_older_than_what_it_wrote(
    handling: Handling, lag: Lag
) -> None:
    key = handling.key("count")
    await handling.handle(1, handling.add, claim=MINE)
    before = await old(handling)
    await handling.handle(2, handling.add, claim=MINE)
    lag.serve(key, before, 3)
    await handling.handle(3, handling.add_and_tell, claim=MINE)
    assert (await handling.value("count"), handling.runs, lag.left(key)) == (3, 3, 0)


async def test_a_request_reads_nothing_older_than_what_its_instance_wrote(
    handling: Handling, lag: Lag
) -> None:
    await handling.handle(1, handling.add)
    before = await old(handling)
    await handling.handle(2, handling.add)
    lag.serve(handling.key("count"), before, 2)
    own = state.State(handling.bus, handling.tenant, "orders", bucket=handling.bucket)
    entry = await own.get("count", int)
    assert entry is not None
    assert entry.value == 2


async def test_a_read_after_a_conflict_is_no_older_than_the_conflict(
    handling: Handling, lag: Lag
) -> None:
    key, bucket = handling.key("x"), Latest(handling.bus)
    bucket._replicated = True
    revision = await bucket.write(key, b"1")
    before = await old(handling, "x")
    await handling.bucket.write(key, b"2")
    with pytest.raises(Conflict):
        await bucket.write(key, b"3", revision)
    lag.serve(key, before, 2)
    record = await bucket.read(key)
    assert record is not None
    assert record.body == b"2"


async def test_what_is_lost_is_not_waited_for_for_ever(
    handling: Handling, lag: Lag, hasty: None
) -> None:
    key = handling.key("x")
    await handling.bucket.write(key, b"1")
    lag.serve(key, None, 1000)
    assert await handling.bucket.read(key) is None
    assert handling.bucket.seen(key) is None


async def test_with_one_replica_nothing_is_read_twice(handling: Handling, lag: Lag) -> None:
    key, handling.bucket._replicated = handling.key("x"), False
    await handling.bucket.write(key, b"1")
    lag.serve(key, None)
    assert await handling.bucket.read(key) is None
    assert lag.reads == [key]


def under_way(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Refuse so many writes, as a server does while another write of the key is under way."""
    real = Bucket.write

    async def write(*args: Any) -> int:
        nonlocal times
        times -= 1
        if times >= 0:
            raise JetStreamError("wrong last sequence", status=400, err_code=10164)
        return await real(*args)

    monkeypatch.setattr(Bucket, "write", write)


async def test_a_write_waits_for_another_one_that_is_under_way(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await handling.handle(1, handling.add, claim=MINE)
    under_way(monkeypatch, 3)
    await handling.handle(2, handling.add, claim=MINE)
    assert (await handling.value("count"), handling.runs) == (2, 2)


async def test_a_write_that_has_to_wait_for_ever_is_not_made(
    handling: Handling, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    with monkeypatch.context() as patch:
        under_way(patch, 1000)
        with pytest.raises(Unavailable, match="is under way"):
            await handling.bucket.write(handling.key("x"), b"1", 0)
    assert await handling.record("x") is None


async def test_an_answer_that_was_overtaken_is_not_remembered(handling: Handling) -> None:
    key = handling.key("x")
    revision = await handling.bucket.write(key, b"1")
    handling.bucket.remember(key, Seen(revision - 1, 0))
    assert handling.bucket.seen(key) == Seen(revision, 0)


async def test_one_server_keeps_a_value_once(handling: Handling) -> None:
    assert not await Latest(handling.bus).is_replicated("orders")


async def test_a_bucket_that_does_not_say_is_taken_for_replicated(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Latest(handling.bus)
    errors: list[Exception] = [Unavailable("away"), JetStreamError("odd", status=500, err_code=1)]

    async def fails(*_: object) -> None:
        raise errors.pop()

    with monkeypatch.context() as patch:
        patch.setattr(Latest, "_probe", fails)
        assert await bucket.is_replicated("orders")
        assert await bucket.is_replicated("orders")
    assert not await bucket.is_replicated("orders")


# what a former owner has written


async def inherit(handling: Handling, lag: Lag, name: str, times: int = 1) -> Handling:
    """The next owner, who gets to read once what `name` held before message 2."""
    before = await old(handling, name)
    await handling.handle(2, handling.add_and_tell, claim=MINE)
    lag.serve(handling.key(name), before, times)
    return handling.again()


async def test_a_value_of_the_former_owner_is_not_written_over(
    handling: Handling, lag: Lag
) -> None:
    await handling.handle(1, handling.add, claim=MINE)
    heir = await inherit(handling, lag, "count")
    await heir.handle(3, heir.add_and_tell, claim=NEXT)
    assert (await heir.value("count"), heir.runs) == (3, 2)
    assert await heir.told() == [b"2", b"3"]


async def test_a_value_that_was_not_there_yet_is_not_written_over(
    handling: Handling, lag: Lag
) -> None:
    heir = await inherit(handling, lag, "count")
    await heir.handle(3, heir.add_and_tell, claim=NEXT)
    assert (await heir.value("count"), heir.runs) == (2, 2)


async def test_a_value_that_is_current_runs_nothing_again(handling: Handling) -> None:
    await handling.handle(1, handling.add, claim=MINE)
    heir = handling.again()
    await heir.handle(3, heir.add_and_tell, claim=NEXT)
    assert (await heir.value("count"), heir.runs) == (2, 1)


async def test_a_deletion_by_the_former_owner_is_not_undone(handling: Handling, lag: Lag) -> None:
    async def forget(ctx: Context) -> None:
        await ctx.state.delete("count")

    await handling.handle(1, handling.add, claim=MINE)
    before = await old(handling)
    await handling.handle(2, forget, claim=MINE)
    lag.serve(handling.key("count"), before)
    heir = handling.again()
    await heir.handle(3, heir.add_and_tell, claim=NEXT)
    assert (await heir.value("count"), heir.runs) == (1, 2)


async def test_a_value_that_is_only_read_is_read_as_the_former_owner_left_it(
    handling: Handling, lag: Lag
) -> None:
    async def copy(ctx: Context) -> None:
        entry = await ctx.state.get("count", int)
        await ctx.state.put("copy", entry.value if entry else 0)

    await handling.handle(1, handling.add, claim=MINE)
    heir = await inherit(handling, lag, "count")
    await heir.handle(3, copy, claim=NEXT)
    assert await heir.value("copy") == 2


async def test_an_event_says_what_the_former_owner_left(handling: Handling, lag: Lag) -> None:
    async def tell(ctx: Context) -> None:
        entry = await ctx.state.get("count", int)
        ctx.emit(heir.placed, entry.value if entry else 0)

    await handling.handle(1, handling.add, claim=MINE)
    heir = await inherit(handling, lag, "count")
    await heir.handle(3, tell, claim=NEXT)
    assert await heir.told() == [b"2", b"2"]


async def test_a_message_that_the_former_owner_settled_counts_once(
    handling: Handling, lag: Lag
) -> None:
    await handling.handle(1, handling.add, claim=MINE)
    heir = await inherit(handling, lag, "count")
    with pytest.raises(Repeated):
        await heir.handle(2, heir.add_and_tell, claim=NEXT)
    assert (await heir.value("count"), await heir.told()) == (2, [b"2"])


async def test_a_former_owner_can_not_write_over_what_was_proven(handling: Handling) -> None:
    await handling.handle(1, handling.add, claim=MINE)
    late = handling.commit.values.known(handling.key("count"))
    assert late is not None

    heir = handling.again()
    proven = await heir.commit.values.prove(
        handling.key("count"), await old(handling), fence(3, claim=NEXT)
    )
    assert proven
    with pytest.raises(Conflict):
        await handling.commit.values.put(handling.key("count"), b"9", late, 2)


async def test_a_value_is_left_as_it_was_by_its_proof(handling: Handling) -> None:
    async def look(ctx: Context) -> None:
        await ctx.state.get("count", int)
        ctx.emit(handling.placed, 1)

    await handling.handle(1, handling.add, claim=MINE)
    before = await old(handling)
    await handling.again().handle(3, look, claim=NEXT)
    after = await old(handling)
    assert before is not None
    assert after is not None
    assert (after.body, after.headers["Tenant-Fence"]) == (b"1", "1")
    assert after.revision > before.revision


# when it is proven


async def test_a_value_is_proven_once_for_each_claim(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(ctx: Context) -> None:
        await ctx.state.get("count", int)
        ctx.emit(handling.placed, 1)

    renewals = Renewals(monkeypatch)
    for seq, claim in enumerate((MINE, MINE, NEXT, NEXT), 1):
        await handling.handle(seq, look, claim=claim)
    assert renewals.keys == [handling.key("count")] * 2


async def test_what_this_owner_has_written_needs_no_proof(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await handling.handle(1, handling.add, claim=MINE)
    renewals = Renewals(monkeypatch)
    for seq in (2, 3):
        await handling.handle(seq, handling.add_and_tell, claim=MINE)
    assert (renewals.keys, await handling.value("count")) == ([], 3)


async def test_one_value_is_its_own_proof(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals = Renewals(monkeypatch)
    await handling.handle(1, handling.add, claim=MINE)
    assert renewals.keys == []


async def test_with_one_replica_nothing_is_proven(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    handling.bucket._replicated = False
    renewals = Renewals(monkeypatch)
    await handling.handle(1, handling.add_and_tell, claim=MINE)
    assert (renewals.keys, await handling.value("count")) == ([], 1)


async def test_a_proof_whose_answer_is_lost_runs_nothing_again(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    Renewals(monkeypatch, Unavailable("lost"))
    await handling.handle(1, handling.add_and_tell, claim=MINE)
    assert (await handling.value("count"), handling.runs) == (1, 1)


async def test_a_proof_that_is_refused_is_tried_with_the_message_again(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    Renewals(monkeypatch, JetStreamError("full", status=503, err_code=10047))
    with pytest.raises(Unavailable):
        await handling.handle(1, handling.add_and_tell, claim=MINE)
    await handling.handle(1, handling.add_and_tell, claim=MINE)
    assert (await handling.value("count"), await handling.told()) == (1, [b"1"])


# what a former owner has committed and not made


async def cut_off(handling: Handling, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(effects.Effects, "make", crash)
        with pytest.raises(Crash):
            await handling.handle(5, handling.add_and_tell, claim=MINE)


async def crash(_: object) -> None:
    raise Crash


async def test_the_last_record_is_finished_although_a_replica_does_not_know_it(
    handling: Handling, monkeypatch: pytest.MonkeyPatch, lag: Lag
) -> None:
    await cut_off(handling, monkeypatch)
    lag.serve(handling.key("/redo"), None)
    assert await handling.again().commit.finish(handling.tenant, 0, 5) == 5
    assert (await handling.value("count"), await handling.told()) == (1, [b"1"])


async def test_no_former_owner_commits_after_its_record_was_finished(handling: Handling) -> None:
    await handling.handle(5, handling.add_and_tell, claim=MINE)
    over = handling.commit.values.known(handling.key("/redo"))
    assert over is not None
    await handling.again().commit.finish(handling.tenant, 0, 6)
    with pytest.raises(Conflict):
        await handling.commit.values.put(handling.key("/redo"), b"x", over, 6)


async def test_a_record_that_always_changes_is_said(
    handling: Handling, lag: Lag, hasty: None
) -> None:
    await handling.handle(5, handling.add_and_tell, claim=MINE)
    lag.serve(handling.key("/redo"), None, 10_000)
    with pytest.raises(Unavailable, match="changes all the time"):
        await handling.again().commit.finish(handling.tenant, 0, 5)


async def test_what_was_cut_off_here_is_found_although_a_replica_does_not_know_it(
    handling: Handling, monkeypatch: pytest.MonkeyPatch, lag: Lag
) -> None:
    put = handling.commit.values.put

    async def stored(*args: Any) -> None:
        handling.bucket._known.clear()
        await put(*args)
        handling.bucket._known.clear()
        raise Crash

    async def elsewhere(ctx: Context) -> None:
        await ctx.state.put(f"run{handling.runs}", 1)

    with monkeypatch.context() as patch:
        patch.setattr(handling.commit.values, "put", stored)
        with pytest.raises(Crash):
            await handling.handle(5, elsewhere, claim=MINE)
    lag.serve(handling.key("run1"), None)
    await handling.handle(5, elsewhere, claim=MINE)
    assert await handling.state().names() == ["run1"]


# what is listed


def late_list(owner: Any, monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Let the first lists of the state be of a replica that has nothing yet."""
    real: Callable[..., AsyncIterator[StoredMessage]] = owner.read
    lists: list[int] = []

    async def read(*args: Any, **options: Any) -> AsyncIterator[StoredMessage]:
        lists.append(len(lists))
        async for message in real(*args, **options):
            if len(lists) > times:
                yield message

    monkeypatch.setattr(owner, "read", read)
    return lists


async def test_progress_is_read_until_it_has_the_last_record(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await handling.handle(5, handling.add_and_tell, claim=MINE)
    heir = handling.again()
    await heir.commit.finish(heir.tenant, 0, 6)
    lists = late_list(progress, monkeypatch, 2)
    assert await progress.settled_up_to(heir.bucket, heir.tenant, "orders", 0, 0, 0.0) == 5
    assert len(lists) == 3


async def test_progress_that_can_not_be_read_is_said(
    handling: Handling, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    await handling.commit.finish(handling.tenant, 0, 6)
    late_list(progress, monkeypatch, 1000)
    with pytest.raises(Unavailable, match="lag behind"):
        await progress.settled_up_to(handling.bucket, handling.tenant, "orders", 0, 0, 0.0)


async def test_names_are_those_that_the_former_owner_left(
    handling: Handling, monkeypatch: pytest.MonkeyPatch, lag: Lag
) -> None:
    await handling.handle(1, handling.add, claim=MINE)
    heir = handling.again()
    late_list(state, monkeypatch, 1)
    lag.serve(handling.key("count"), None)
    hook = state.State(
        heir.bus, heir.tenant, "orders", fence(ordered=False, claim=NEXT), bucket=heir.bucket
    )
    assert await hook.names() == ["count"]


async def test_names_of_this_owner_need_one_record(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def names(ctx: Context) -> None:
        await ctx.state.names()

    renewals = Renewals(monkeypatch)
    for seq in (1, 2):
        await handling.handle(seq, names, claim=MINE)
    assert renewals.keys == [handling.key("/redo")]


async def test_names_that_can_not_be_listed_are_said(
    handling: Handling, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    late_list(state, monkeypatch, 1000)
    with pytest.raises(Unavailable, match="lag behind"):
        await handling.staged(claim=MINE).names()


# what goes wrong otherwise


async def test_a_write_that_nats_refuses_for_another_reason_is_not_tried_again(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    async def refuses(_bucket: Latest, key: str, *_rest: Any) -> int:
        tries.append(key)
        raise JetStreamError("no space", err_code=10047)

    monkeypatch.setattr(Bucket, "write", refuses)
    with pytest.raises(JetStreamError, match="no space"):
        await handling.bucket.write("a.b.c", b"1")
    assert tries == ["a.b.c"]


@pytest.mark.parametrize("error", [JetStreamError("busy", err_code=1), Unavailable("away")])
async def test_while_it_is_not_known_a_bucket_counts_as_replicated(
    handling: Handling, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fails(_bucket: Latest, _service: str) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Latest, "_probe", fails)
        handling.bucket._replicated = None
        assert await handling.bucket.is_replicated("orders")
    assert not await handling.bucket.is_replicated("orders")


async def test_what_is_known_of_a_key_makes_room_for_another(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = handling.key("first"), handling.key("second")
    await handling.state().put("first", 1)
    await handling.state().put("second", 2)
    monkeypatch.setattr(latest, "KEPT", 1)
    bucket = Latest(handling.bus)
    bucket.remember(first, Seen(1, 0))
    with pytest.raises(Conflict):
        await bucket.write(second, b"3", 1)
    assert bucket.seen(first) is None
    assert bucket.newest(second) == 2


async def test_a_request_has_looked_at_nothing(handling: Handling) -> None:
    await handling.state().put("count", 1)
    assert handling.state().looked() == {}
