"""A stored message's state and events count together, and once, whatever happens in between."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tenantry import Context
from tenantry.bus import Bus
from tenantry.context import latest
from tenantry.context.fence import fence_of
from tenantry.errors import (
    DeadlineExceeded,
    JetStreamError,
    LaneLost,
    Rejection,
    Repeated,
    Superseded,
    Unavailable,
)
from tenantry.runtime import commit as commits
from tenantry.runtime import effects, redo, values
from tenantry.runtime.outbox import Parcel
from tenantry.runtime.stored import Permanent
from tests.unit.core.fences import fence
from tests.unit.state.handling import Crash, Handling, Work


@pytest.fixture
async def handling(bus: Bus) -> Handling:
    return await Handling.make(bus)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (commits, values):
        monkeypatch.setattr(module, "_PAUSE", 0.001)


async def two(ctx: Context) -> None:
    """Write two names."""
    await ctx.state.put("a", 1)
    await ctx.state.put("b", 2)


async def read_two(ctx: Context) -> None:
    """Write two names that were read."""
    for name in "ab":
        entry = await ctx.state.get(name, int)
        await ctx.state.put(name, entry.value + 1 if entry else 1)


class Fault:
    """Makes the calls of a method that fail as planned; the others pass."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *plan: BaseException | None
    ) -> None:
        self.plan = list(plan)
        self.after = False
        """Whether a call that fails does its work first: then only its answer is lost."""
        self.calls = 0
        self._do: Callable[..., Awaitable[Any]] = getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        error = self.plan.pop(0) if self.plan else None
        if error is None or self.after:
            result = await self._do(*args, **kwargs)
        if error is not None:
            raise error
        return result


# one value


async def test_a_handler_that_fails_writes_nothing(handling: Handling) -> None:
    async def fails(ctx: Context) -> None:
        await handling.add(ctx)
        raise RuntimeError("no")

    with pytest.raises(Rejection):
        await handling.handle(1, fails)
    assert await handling.value("count") is None


async def test_a_message_that_fails_first_counts_once(handling: Handling) -> None:
    async def fails(ctx: Context) -> None:
        await handling.add(ctx)
        raise RuntimeError("no")

    with pytest.raises(Rejection):
        await handling.handle(1, fails)
    await handling.handle(1, handling.add)
    assert await handling.value("count") == 1


async def test_each_message_counts(handling: Handling) -> None:
    for seq in range(1, 6):
        await handling.handle(seq, handling.add)
    assert await handling.value("count") == 5


async def test_one_value_leaves_no_redo_record(handling: Handling) -> None:
    await handling.handle(1, handling.add)
    assert await handling.record("/redo") is None


async def test_a_message_that_is_delivered_again_counts_once(handling: Handling) -> None:
    await handling.handle(1, handling.add)
    with pytest.raises(Repeated):
        await handling.again().handle(1, handling.add)
    assert await handling.value("count") == 1


async def test_what_a_handler_only_reads_is_left_alone(handling: Handling) -> None:
    async def looks(ctx: Context) -> None:
        await ctx.state.get("count", int)

    await handling.handle(1, handling.add)
    before = await handling.record("count")
    await handling.handle(2, looks)
    assert await handling.record("count") == before


async def test_a_value_is_deleted(handling: Handling) -> None:
    async def forget(ctx: Context) -> None:
        await ctx.state.delete("count")

    await handling.handle(1, handling.add)
    await handling.handle(2, forget)
    assert await handling.value("count") is None


async def test_a_value_that_no_key_can_hold_is_a_dead_letter(handling: Handling) -> None:
    async def large(ctx: Context) -> None:
        await ctx.state.put("large", "x" * handling.bus.max_body)

    with pytest.raises(Permanent) as caught:
        await handling.handle(1, large)
    assert re.search(r"large have [\d,]+ bytes, at most [\d,]+", caught.value.rejection.cause)
    assert await handling.value("large") is None


# a request in between


async def test_a_handler_runs_again_when_a_request_changes_what_it_has_read(
    handling: Handling,
) -> None:
    async def raced(ctx: Context) -> None:
        await handling.add(ctx)
        if handling.runs == 1:
            await handling.state().put("count", 10)

    await handling.handle(1, raced)
    assert (await handling.value("count"), handling.runs) == (11, 2)


async def test_a_handler_does_not_run_again_for_a_name_that_it_has_not_read(
    handling: Handling,
) -> None:
    async def raced(ctx: Context) -> None:
        await ctx.state.put("count", 1)
        await handling.state().put("count", 10)

    await handling.handle(1, raced)
    assert (await handling.value("count"), handling.runs) == (1, 1)


async def test_a_handler_does_not_run_again_for_what_it_read_and_did_not_write(
    handling: Handling,
) -> None:
    async def raced(ctx: Context) -> None:
        await ctx.state.get("other", int)
        await handling.state().put("other", 10)
        await ctx.state.put("count", 1)

    await handling.handle(1, raced)
    assert handling.runs == 1


async def test_a_handler_that_a_request_disturbs_all_the_time_fails(handling: Handling) -> None:
    async def raced(ctx: Context) -> None:
        await handling.add(ctx)
        await handling.state().put("count", 10)

    with pytest.raises(Rejection) as caught:
        await handling.handle(1, raced)
    assert caught.value.retry
    assert handling.runs == 11


async def test_a_run_that_does_not_count_emits_nothing(handling: Handling) -> None:
    async def raced(ctx: Context) -> None:
        await handling.add(ctx)
        if handling.runs == 1:
            ctx.emit(handling.placed, 1)
            await handling.state().put("count", 10)

    await handling.handle(1, raced, ordered=False)
    assert await handling.told() == []


async def test_with_several_effects_the_message_writes_over_a_request(handling: Handling) -> None:
    async def raced(ctx: Context) -> None:
        await read_two(ctx)
        await handling.state().put("a", 10)

    await handling.handle(1, raced)
    assert (await handling.value("a"), handling.runs) == (1, 1)


# several effects


async def test_two_values_are_written(handling: Handling) -> None:
    await handling.handle(1, two)
    assert (await handling.value("a"), await handling.value("b")) == (1, 2)


async def test_a_value_and_an_event_count_together(handling: Handling) -> None:
    for seq in range(1, 4):
        await handling.handle(seq, handling.add_and_tell)
    assert await handling.value("count") == 3
    assert await handling.told() == [b"1", b"2", b"3"]


async def test_an_event_without_a_value_needs_no_record(handling: Handling) -> None:
    async def tells(ctx: Context) -> None:
        ctx.emit(handling.placed, 1)

    await handling.handle(1, tells)
    assert await handling.told() == [b"1"]
    assert await handling.record("/redo") is None


async def test_an_event_of_a_record_has_all_headers(handling: Handling) -> None:
    async def tells(ctx: Context) -> None:
        ctx.emit(handling.placed, 1)

    await handling.handle(1, tells)
    await handling.handle(2, handling.add_and_tell)
    plain, recorded = await handling.emitted()
    assert plain.headers.keys() == recorded.headers.keys()
    assert {"Tenant-Context", "traceparent", "Nats-Msg-Id"} <= recorded.headers.keys()


async def test_a_timer_comes_after_its_schedule(handling: Handling) -> None:
    async def later(ctx: Context) -> None:
        await ctx.state.put("a", 1)
        ctx.send("orders.place", {}, after=60)
        ctx.emit(handling.placed, 1)

    await handling.handle(1, later)
    kinds = [message.subject.split(".")[0] for message in await handling.emitted()]
    assert kinds == ["schedule", "tenant", "timer"]


async def test_the_record_carries_the_fence(handling: Handling) -> None:
    await handling.handle(5, two, epoch=1)
    record = await handling.record("/redo")
    assert record is not None
    assert record.headers["Tenant-Fence"] == str(fence_of(1, 5))


async def test_names_do_not_show_the_record(handling: Handling) -> None:
    await handling.handle(1, two)
    await handling.handle(1, two, generation=1)
    assert await handling.state().names() == ["a", "b"]
    assert await handling.state(1).names() == ["a", "b"]


async def test_each_namespace_has_its_own_record(handling: Handling) -> None:
    await handling.handle(5, two, generation=1)
    await handling.handle(4, two)
    await handling.handle(6, two, generation=1)
    live, other = await handling.record("/redo"), await handling.record("/redo", 1)
    assert live is not None
    assert other is not None
    assert (live.headers["Tenant-Fence"], other.headers["Tenant-Fence"]) == ("4", "6")


async def test_a_deletion_is_one_of_several_effects(handling: Handling) -> None:
    async def swap(ctx: Context) -> None:
        await ctx.state.delete("a")
        await ctx.state.put("c", 3)

    await handling.handle(1, two)
    await handling.handle(2, swap)
    assert await handling.state().names() == ["b", "c"]


async def test_many_values_are_written(handling: Handling, monkeypatch: pytest.MonkeyPatch) -> None:
    async def many(ctx: Context) -> None:
        for number in range(10):
            await ctx.state.put(f"n{number}", number)

    monkeypatch.setattr(effects, "_AT_ONCE", 4)
    await handling.handle(1, many)
    assert [await handling.value(f"n{number}") for number in range(10)] == list(range(10))


async def test_more_than_a_record_can_hold_is_a_dead_letter(handling: Handling) -> None:
    async def large(ctx: Context) -> None:
        for name in "ab":
            await ctx.state.put(name, "x" * (handling.bus.max_body // 2))

    with pytest.raises(Permanent) as caught:
        await handling.handle(1, large)
    assert "state and events of one message have" in caught.value.rejection.cause
    assert await handling.value("a") is None


async def test_as_much_as_a_record_can_hold_is_committed(handling: Handling) -> None:
    async def large(ctx: Context) -> None:
        for name in "ab":
            await ctx.state.put(name, "x" * (handling.bus.max_body // 2 - 1000))

    await handling.handle(1, large)
    assert await handling.record("b") is not None


async def test_more_than_a_message_may_emit_is_a_dead_letter(handling: Handling) -> None:
    async def floods(ctx: Context) -> None:
        for number in range(1001):
            ctx.emit(handling.placed, number)

    with pytest.raises(Permanent) as caught:
        await handling.handle(1, floods)
    assert "TooMuchEmitted" in caught.value.rejection.cause
    assert await handling.told() == []


async def test_a_late_message_with_several_effects_is_refused(handling: Handling) -> None:
    async def other_two(ctx: Context) -> None:
        await ctx.state.put("c", 1)
        await ctx.state.put("d", 1)

    await handling.handle(6, two)
    for instance in (handling, handling.again()):
        with pytest.raises(Superseded):
            await instance.handle(5, other_two)
    assert await handling.value("c") is None


async def test_a_record_of_somebody_else_shows_although_another_is_remembered(
    handling: Handling,
) -> None:
    await handling.handle(5, two)
    await handling.again().handle(7, two)
    with pytest.raises(Superseded):
        await handling.handle(6, two)
    await handling.handle(8, two)


async def test_a_record_is_not_read_before_each_message(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await handling.handle(1, two)
    reads = Fault(monkeypatch, handling.commit.values, "read")
    await handling.handle(2, two)
    assert reads.calls == 0


async def test_what_is_remembered_is_bounded(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latest, "KEPT", 2)
    for seq in (1, 2):
        await handling.handle(seq, two)
    assert len(handling.commit.values.bucket._known) <= 2
    assert await handling.value("b") == 2


# crashes


async def committed_only(handling: Handling, monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """Have message 5 end right after its record is written."""
    with monkeypatch.context() as patch:
        Fault(patch, effects.Effects, "make", Crash())
        with pytest.raises(Crash):
            await handling.handle(5, work)


async def test_what_was_committed_is_finished_by_the_next_instance(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed_only(handling, monkeypatch, handling.add_and_tell)
    assert (await handling.value("count"), await handling.told()) == (None, [])
    assert await handling.again().commit.finish(handling.tenant, 0, 5) == 5
    assert (await handling.value("count"), await handling.told()) == (1, [b"1"])


async def test_what_was_committed_in_a_namespace_is_finished_there(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Fault(patch, effects.Effects, "make", Crash())
        with pytest.raises(Crash):
            await handling.handle(5, two, generation=2, epoch=1)
    assert await handling.again().commit.finish(handling.tenant, 0, 0) == 0
    own = fence_of(1, 5)
    assert await handling.again().commit.finish(handling.tenant, 2, own) == own
    assert (await handling.value("a"), await handling.value("a", 2)) == (None, 1)


async def test_an_old_record_is_left_alone(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed_only(handling, monkeypatch, handling.add_and_tell)
    assert await handling.again().commit.finish(handling.tenant, 0, 6) == 5
    assert (await handling.value("count"), await handling.told()) == (None, [])


async def test_where_there_is_no_record_there_is_nothing_to_finish(handling: Handling) -> None:
    assert await handling.commit.finish(handling.tenant, 0, 0) == 0


async def test_a_crash_after_one_of_two_values_is_finished(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Fault(patch, handling.commit.values, "settle", None, Crash())
        with pytest.raises(Crash):
            await handling.handle(5, two)
    assert (await handling.value("a"), await handling.value("b")) == (1, None)
    await handling.again().commit.finish(handling.tenant, 0, 5)
    assert (await handling.value("a"), await handling.value("b")) == (1, 2)


async def test_a_crash_after_the_events_publishes_none_twice(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fault = Fault(patch, handling.outbox, "send", Crash())
        fault.after = True
        with pytest.raises(Crash):
            await handling.handle(5, handling.add_and_tell)
    assert await handling.told() == [b"1"]
    await handling.again().commit.finish(handling.tenant, 0, 5)
    assert await handling.told() == [b"1"]
    assert await handling.value("count") == 1


async def test_finishing_twice_changes_nothing(handling: Handling) -> None:
    await handling.handle(5, handling.add_and_tell)
    before = await handling.record("count")
    for _ in range(2):
        await handling.again().commit.finish(handling.tenant, 0, 5)
    assert await handling.record("count") == before
    assert await handling.told() == [b"1"]


async def test_finishing_keeps_what_a_request_has_written_over_it(handling: Handling) -> None:
    await handling.handle(5, handling.add_and_tell)
    await handling.state().put("count", 10)
    await handling.again().commit.finish(handling.tenant, 0, 5)
    assert await handling.value("count") == 10


async def test_a_message_that_is_handled_again_is_finished_first(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fault = Fault(patch, handling.commit.values, "settle", Crash())
        fault.after = True
        with pytest.raises(Crash):
            await handling.handle(5, handling.add_and_tell)
    with pytest.raises(Repeated):
        await handling.again().handle(5, handling.add_and_tell)
    assert (await handling.value("count"), await handling.told()) == (1, [b"1"])


async def test_a_record_that_is_there_counts_and_not_what_the_handler_says_now(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def different(ctx: Context) -> None:
        await ctx.state.put("c", 1)
        await ctx.state.put("d", 2)

    await committed_only(handling, monkeypatch, two)
    await handling.again().handle(5, different)
    assert await handling.state().names() == ["a", "b"]


async def test_what_was_cut_off_here_is_finished_and_not_run_again(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed_only(handling, monkeypatch, handling.add_and_tell)
    await handling.handle(5, handling.add_and_tell)
    assert handling.runs == 1
    assert (await handling.value("count"), await handling.told()) == (1, [b"1"])
    assert handling.commit.cut_off == {}


async def test_what_was_cut_off_here_is_finished_before_the_next_message(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed_only(handling, monkeypatch, handling.add_and_tell)
    await handling.handle(6, handling.add_and_tell)
    assert (await handling.value("count"), await handling.told()) == (2, [b"1", b"2"])


async def test_one_value_that_was_cut_off_here_is_not_written_again(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def elsewhere(ctx: Context) -> None:
        await ctx.state.put(f"run{handling.runs}", 1)

    with monkeypatch.context() as patch:
        Fault(patch, handling.commit.values, "put", Crash()).after = True
        with pytest.raises(Crash):
            await handling.handle(5, elsewhere)
    await handling.handle(5, elsewhere)
    assert await handling.state().names() == ["run1"]


async def test_what_was_cut_off_before_it_was_committed_runs_again(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Fault(patch, handling.commit.values, "put", Crash())
        with pytest.raises(Crash):
            await handling.handle(5, handling.add)
    await handling.handle(5, handling.add)
    assert (await handling.value("count"), handling.runs) == (1, 2)


async def test_a_damaged_record_is_not_passed_over(handling: Handling) -> None:
    await handling.handle(5, two)
    key = f"{handling.tenant}.orders./redo"
    await handling.state()._bucket.write(key, b"odd")
    with pytest.raises(Unavailable, match="can't be read"):
        await handling.commit.finish(handling.tenant, 0, 5)


# answers that are lost


@pytest.mark.parametrize("error", [Unavailable("lost"), DeadlineExceeded("lost")])
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("way", ["add", "add_and_tell"])
async def test_a_lost_answer_counts_once_and_runs_nothing_again(
    handling: Handling,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    stored: bool,
    way: str,
) -> None:
    Fault(monkeypatch, handling.commit.values, "put", error, error).after = stored
    await handling.handle(5, getattr(handling, way))
    assert (await handling.value("count"), handling.runs) == (1, 1)
    assert await handling.told() == ([b"1"] if way == "add_and_tell" else [])


async def test_a_lost_answer_is_asked_for_until_there_is_one(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fault(monkeypatch, handling.commit.values, "put", Unavailable("lost")).after = True
    reads = Fault(monkeypatch, handling.commit.values, "read", *[Unavailable("away")] * 3)
    await handling.handle(5, handling.add)
    assert reads.calls == 4
    assert (await handling.value("count"), handling.runs) == (1, 1)


async def test_a_message_that_is_lost_while_nobody_answers_is_not_settled(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fence(5)

    async def away(_key: str) -> None:
        own.end()
        raise Unavailable("away")

    Fault(monkeypatch, handling.commit.values, "put", Unavailable("lost")).after = True
    monkeypatch.setattr(handling.commit.values, "read", away)
    with pytest.raises(LaneLost):
        await handling.handle_under(own, handling.add)


async def test_a_request_after_a_lost_answer_does_not_run_the_handler_again(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = handling.commit.values.put

    async def lost(*args: Any) -> None:
        await put(*args)
        await handling.state().put("count", 10)
        raise Unavailable("lost")

    monkeypatch.setattr(handling.commit.values, "put", lost)
    await handling.handle(5, handling.add)
    assert (await handling.value("count"), handling.runs) == (10, 1)


async def test_a_replica_that_lags_behind_is_asked_again(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await handling.state().put("count", 1)
    old = await handling.record("count")
    await handling.state().put("count", 2)
    read = handling.commit.values.read
    stale = [old, old]

    async def lags(key: str) -> Any:
        return stale.pop() if stale else await read(key)

    async def blind(ctx: Context) -> None:
        await ctx.state.put("count", 3)

    monkeypatch.setattr(handling.commit.values, "read", lags)
    await handling.handle(5, blind)
    assert await handling.value("count") == 3


async def test_effects_are_made_as_soon_as_they_can_be(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fault(monkeypatch, handling.outbox, "send", Unavailable("full"), Unavailable("full"))
    await handling.handle(5, handling.add_and_tell)
    assert (await handling.value("count"), await handling.told()) == (1, [b"1"])
    assert handling.runs == 1


async def test_events_that_can_never_be_published_keep_no_value_back(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise Rejection("never")

    monkeypatch.setattr(handling.outbox, "send", refused)
    Fault(monkeypatch, handling.commit.values, "settle", Unavailable("away"))
    with pytest.raises(Rejection, match="never"):
        await handling.handle(5, handling.add_and_tell)
    assert await handling.value("count") == 1


async def test_finishing_drops_events_that_can_never_be_published(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed_only(handling, monkeypatch, handling.add_and_tell)
    heir = handling.again()

    async def refused(*_: object) -> None:
        raise Rejection("never")

    monkeypatch.setattr(heir.outbox, "send", refused)
    assert await heir.commit.finish(handling.tenant, 0, 5) == 5
    assert await handling.value("count") == 1


async def test_what_can_not_be_finished_now_is_said(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed_only(handling, monkeypatch, handling.add_and_tell)
    heir = handling.again()
    Fault(monkeypatch, heir.outbox, "send", Unavailable("full"))
    with pytest.raises(Unavailable):
        await heir.commit.finish(handling.tenant, 0, 5)
    assert await heir.commit.finish(handling.tenant, 0, 5) == 5
    assert await handling.told() == [b"1"]


async def test_it_is_known_while_a_message_is_being_committed(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, going = fence(5), asyncio.Event()
    put = handling.commit.values.put
    told: list[bool] = []

    async def slow(*args: Any) -> None:
        told.append(own.committing)
        await put(*args)
        going.set()

    async def work(ctx: Context) -> None:
        told.append(own.committing)
        await handling.add(ctx)

    monkeypatch.setattr(handling.commit.values, "put", slow)
    await handling.handle_under(own, work)
    assert [*told, own.committing] == [False, True, False]
    assert going.is_set()


# without an order


async def test_an_unordered_message_writes_and_emits(handling: Handling) -> None:
    async def work(ctx: Context) -> None:
        await two(ctx)
        ctx.emit(handling.placed, 1)

    await handling.handle(5, work, ordered=False)
    assert (await handling.value("a"), await handling.value("b")) == (1, 2)
    assert await handling.told() == [b"1"]
    assert await handling.record("/redo") is None


async def test_an_unordered_message_keeps_the_fence_that_is_there(handling: Handling) -> None:
    await handling.handle(5, handling.add)
    await handling.handle(3, handling.add, ordered=False)
    record = await handling.record("count")
    assert record is not None
    assert (record.body, record.headers["Tenant-Fence"]) == (b"2", "5")


async def test_an_unordered_handler_runs_again_when_what_it_has_read_changes(
    handling: Handling,
) -> None:
    async def raced(ctx: Context) -> None:
        await handling.add(ctx)
        if handling.runs == 1:
            await handling.state().put("count", 10)

    await handling.handle(5, raced, ordered=False)
    assert (await handling.value("count"), handling.runs) == (11, 2)


async def test_an_unordered_message_writes_over_what_it_has_not_read(handling: Handling) -> None:
    async def raced(ctx: Context) -> None:
        await ctx.state.put("count", 1)
        await handling.state().put("count", 10)

    await handling.handle(5, raced, ordered=False)
    assert (await handling.value("count"), handling.runs) == (1, 1)


def test_a_record_says_all_that_it_was_given() -> None:
    made = redo.Redo(
        fence=5,
        token="t",
        expires=1.5,
        trace={"traceparent": "x"},
        writes={"a": b"1", "b": None},
        events=[Parcel("s", {"h": "v"}, b"\xff"), Parcel("t", {}, b"", True)],
    )
    assert redo.decode("k", redo.encode(made)) == made


# commits beside each other


async def test_an_unordered_message_leaves_a_commit_alone_that_is_running(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, begun, go = effects.Effects.make, asyncio.Event(), asyncio.Event()

    async def slow(self: effects.Effects) -> None:
        begun.set()
        await go.wait()
        await make(self)

    async def loose(ctx: Context) -> None:
        await ctx.state.put("loose", 1)

    other = handling.beside()
    monkeypatch.setattr(effects.Effects, "make", slow)
    running = asyncio.create_task(handling.handle(5, handling.add_and_tell))
    await begun.wait()
    await other.handle(6, loose, ordered=False)
    assert (await handling.value("loose"), await handling.value("count")) == (1, None)
    go.set()
    await running
    assert (await handling.value("count"), await handling.told()) == (1, [b"1"])


async def test_a_replay_beside_leaves_a_commit_alone_that_is_running(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, begun, go = handling.commit.values.put, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> None:
        if args[0] == handling.key("/redo"):
            begun.set()
            await go.wait()
        await put(*args)

    other = handling.beside()
    monkeypatch.setattr(handling.commit.values, "put", slow)
    running = asyncio.create_task(handling.handle(5, handling.add_and_tell))
    await begun.wait()
    await other.handle(3, other.add_and_tell, generation=1, replaying=True)
    go.set()
    await running
    assert (await handling.value("count"), await handling.value("count", 1)) == (1, 1)


async def test_an_unordered_message_leaves_a_commit_alone_that_was_cut_off(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def loose(ctx: Context) -> None:
        await ctx.state.put("loose", 1)

    await committed_only(handling, monkeypatch, handling.add_and_tell)
    await handling.handle(6, loose, ordered=False)
    assert await handling.value("count") is None
    await handling.handle(7, handling.add_and_tell)
    assert (await handling.value("count"), await handling.told()) == (2, [b"1", b"2"])


async def test_a_commit_that_is_cancelled_is_finished_before_the_next_message(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = asyncio.Event()

    async def stuck(_: object) -> None:
        waits.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(effects.Effects, "make", stuck)
        running = asyncio.create_task(handling.handle(5, handling.add_and_tell))
        await waits.wait()
        running.cancel()
        await asyncio.wait({running})
    assert handling.commit.cut_off
    await handling.handle(6, handling.add_and_tell)
    assert (await handling.value("count"), await handling.told()) == (2, [b"1", b"2"])
    assert handling.commit.cut_off == {}


async def test_a_commit_that_is_refused_is_not_cut_off(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fault(monkeypatch, handling.commit.values, "put", full())
    with pytest.raises(Unavailable):
        await handling.handle(5, handling.add_and_tell)
    assert handling.commit.cut_off == {}


def full() -> JetStreamError:
    return JetStreamError("maximum bytes exceeded", status=503, err_code=10077)
