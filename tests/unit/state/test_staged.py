"""The state of a stored message: its writes are seen by its handler and by nobody else yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantry.bus import Bus
from tenantry.context.staged import StagedState
from tenantry.errors import Conflict
from tests.unit.state.handling import Handling


@pytest.fixture
async def handling(bus: Bus) -> Handling:
    """A tenant that has the value `old`."""
    handling = await Handling.make(bus)
    await handling.state().put("old", 1)
    return handling


@pytest.fixture
def state(handling: Handling) -> StagedState:
    return handling.staged()


async def seen(state: StagedState, name: str) -> int | None:
    entry = await state.get(name, int)
    return entry.value if entry is not None else None


async def test_a_write_is_seen_by_the_message_itself(state: StagedState) -> None:
    await state.put("new", 2)
    assert await seen(state, "new") == 2


async def test_a_write_is_not_stored_before_the_handler_has_succeeded(
    handling: Handling, state: StagedState
) -> None:
    await state.put("new", 2)
    await state.put("old", 2)
    assert (await handling.value("new"), await handling.value("old")) == (None, 1)


async def test_a_write_is_staged_once_for_each_name(state: StagedState) -> None:
    await state.put("new", 2)
    await state.put("new", 3)
    assert [write.body for write in state.staged()] == [b"3"]


async def test_what_is_only_read_is_not_written(state: StagedState) -> None:
    assert await seen(state, "old") == 1
    assert state.staged() == ()


async def test_a_name_is_created_once(state: StagedState) -> None:
    await state.create("new", 2)
    with pytest.raises(Conflict):
        await state.create("new", 3)
    assert await seen(state, "new") == 2


async def test_a_name_that_is_stored_is_not_created(state: StagedState) -> None:
    with pytest.raises(Conflict):
        await state.create("old", 2)


async def test_a_name_that_was_deleted_is_created(state: StagedState) -> None:
    await state.delete("old")
    await state.create("old", 2)
    assert await seen(state, "old") == 2


async def test_the_revision_that_was_read_is_updated(state: StagedState) -> None:
    entry = await state.get("old", int)
    assert entry is not None
    await state.update("old", 2, entry.revision)
    assert await seen(state, "old") == 2


async def test_a_revision_that_was_never_read_is_updated(
    handling: Handling, state: StagedState
) -> None:
    entry = await handling.state().get("old", int)
    assert entry is not None
    await state.update("old", 2, entry.revision)
    assert await seen(state, "old") == 2


async def test_another_revision_is_not_updated(handling: Handling, state: StagedState) -> None:
    entry = await state.get("old", int)
    assert entry is not None
    with pytest.raises(Conflict):
        await state.update("old", 2, entry.revision - 1)
    await handling.state().put("old", 7)
    with pytest.raises(Conflict):
        await handling.staged().update("old", 2, entry.revision)


@pytest.mark.parametrize("revision", [0, 1])
async def test_what_is_not_there_is_not_updated(state: StagedState, revision: int) -> None:
    with pytest.raises(Conflict):
        await state.update("new", 2, revision)
    assert await seen(state, "new") is None
    with pytest.raises(Conflict):
        await state.update("new", 2, revision)


async def test_what_was_deleted_is_not_updated(state: StagedState) -> None:
    entry = await state.get("old", int)
    assert entry is not None
    await state.delete("old")
    with pytest.raises(Conflict):
        await state.update("old", 2, entry.revision)


Writes = Callable[[StagedState], Awaitable[int]]


async def _put(state: StagedState) -> int:
    return await state.put("new", 1)


async def _put_over(state: StagedState) -> int:
    await state.get("old", int)
    return await state.put("old", 1)


async def _create(state: StagedState) -> int:
    return await state.create("new", 1)


async def _update(state: StagedState) -> int:
    entry = await state.get("old", int)
    assert entry is not None
    return await state.update("old", 1, entry.revision)


@pytest.mark.parametrize(
    ("write", "name"), [(_put, "new"), (_put_over, "old"), (_create, "new"), (_update, "old")]
)
async def test_what_a_write_returns_is_good_for_the_next(
    state: StagedState, write: Writes, name: str
) -> None:
    revision = await write(state)
    await state.update(name, 5, revision)
    assert await seen(state, name) == 5
    with pytest.raises(Conflict):
        await state.update(name, 6, revision + 1)


async def test_the_revision_of_a_staged_value_is_the_one_it_will_replace(
    state: StagedState,
) -> None:
    before = await state.get("old", int)
    await state.put("old", 2)
    after = await state.get("old", int)
    assert before is not None
    assert after is not None
    assert after.revision == before.revision


async def test_what_is_deleted_is_gone_for_the_message_itself(
    handling: Handling, state: StagedState
) -> None:
    await state.delete("old")
    assert await seen(state, "old") is None
    assert await handling.value("old") == 1


async def test_what_is_not_there_can_be_deleted(state: StagedState) -> None:
    await state.delete("new")
    assert state.staged() == ()


async def test_what_was_created_and_deleted_leaves_nothing(state: StagedState) -> None:
    await state.create("new", 2)
    await state.delete("new")
    assert await seen(state, "new") is None
    assert state.staged() == ()


async def test_names_are_those_after_the_message(state: StagedState) -> None:
    await state.put("new", 2)
    assert await state.names() == ["new", "old"]
    await state.delete("old")
    assert await state.names() == ["new"]


async def test_clearing_deletes_what_is_stored_and_what_is_staged(
    handling: Handling, state: StagedState
) -> None:
    await state.put("new", 2)
    await state.clear()
    assert await state.names() == []
    assert [write.body for write in state.staged()] == [None]
    assert await handling.value("old") == 1


async def test_a_write_knows_whether_the_handler_has_read_the_name(state: StagedState) -> None:
    await state.put("blind", 1)
    await state.get("read", int)
    await state.put("read", 1)
    await state.create("made", 1)
    await state.delete("old")
    read = {write.key.rpartition(".")[2]: write.read for write in state.staged()}
    assert read == {"blind": False, "read": True, "made": True, "old": False}


async def test_a_write_is_based_on_the_first_read(handling: Handling, state: StagedState) -> None:
    first = await state.get("old", int)
    await handling.state().put("old", 7)
    assert await seen(state, "old") == 7
    await state.put("old", 8)
    (write,) = state.staged()
    assert first is not None
    assert write.seen is not None
    assert write.seen.revision == first.revision


# against a dictionary

NAMES = st.sampled_from(["a", "b", "c"])
STEP = st.tuples(st.sampled_from(["put", "create", "update", "delete", "clear"]), NAMES)


async def _step(state: StagedState, step: tuple[str, str], value: int) -> None:
    kind, name = step
    if kind == "put":
        await state.put(name, value)
    elif kind == "create":
        await state.create(name, value)
    elif kind == "update":
        entry = await state.get(name, int)
        await state.update(name, value, entry.revision if entry is not None else 1)
    elif kind == "delete":
        await state.delete(name)
    else:
        await state.clear()


def _model(model: dict[str, int], step: tuple[str, str], value: int) -> bool:
    """Do the same to a dictionary; False where it is a conflict."""
    kind, name = step
    if kind == "clear":
        model.clear()
    elif kind == "delete":
        model.pop(name, None)
    elif (kind == "create" and name in model) or (kind == "update" and name not in model):
        return False
    else:
        model[name] = value
    return True


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(before=st.dictionaries(NAMES, st.integers(0, 9)), steps=st.lists(STEP, max_size=12))
async def test_it_is_like_a_dictionary(
    bus: Bus, before: dict[str, int], steps: list[tuple[str, str]]
) -> None:
    handling = await Handling.make(bus)
    for name, value in before.items():
        await handling.state().put(name, value)
    model = dict(before)

    async def work(ctx: object) -> None:
        state = ctx.state  # type: ignore[attr-defined]
        for value, step in enumerate(steps):
            if _model(model, step, value):
                await _step(state, step, value)
            else:
                with pytest.raises(Conflict):
                    await _step(state, step, value)
            assert await state.names() == sorted(model)
        assert {name: await seen(state, name) for name in model} == model

    await handling.handle(1, work)
    assert await handling.state().names() == sorted(model)
    assert {name: await handling.value(name) for name in model} == model


async def test_names_are_listed_without_reading_their_values(
    handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(key: str) -> None:
        raise AssertionError(f"{key} was read")

    state = handling.staged()
    monkeypatch.setattr(handling.bucket, "read", read)
    assert await state.names() == ["old"]
