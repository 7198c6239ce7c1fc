"""A replay brings one tenant back: in order, once at a time, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tenantry import Context, Service, errors
from tenantry.bus import Bus
from tenantry.context.state import keys_of, prefix
from tenantry.messages import Replay
from tenantry.replays import Replays
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import Kept, Note, Noted, Texts

ENDED = frozenset({"done", "failed", "cancelled"})


class Book:
    """Writes down what it is told, and what it saw of each run."""

    def __init__(self, name: str, version: str = "1.0.0", *, hook: bool = True) -> None:
        service = self.service = Service(name, version=version)
        self.written = service.event("written", Noted)
        self.runs: list[tuple[str, str, bool]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.wrong = ""
        service.command("write", public=True, replayable=True)(self.write)
        service.command("once", public=True)(self.once)
        service.request("texts", public=True)(self.texts)
        if hook:
            service.reset(self.clear)

    async def write(self, ctx: Context, note: Note) -> None:
        """Append a text."""
        await self.gate.wait()
        self.runs.append((ctx.tenant, note.text, ctx.replaying))
        if note.text == self.wrong:
            raise ValueError(note.text)
        await self._append(ctx, note.text)
        ctx.emit(self.written, Noted(note.text))

    async def once(self, ctx: Context, note: Note) -> None:
        """Append a text, never again."""
        await self._append(ctx, note.text)

    async def _append(self, ctx: Context, text: str) -> None:
        entry = await ctx.state.get("kept", Kept)
        kept = entry.value if entry else Kept()
        await ctx.state.put("kept", Kept((*kept.texts, text), kept.ids))

    async def texts(self, ctx: Context) -> Texts:
        """What is written."""
        entry = await ctx.state.get("kept", Kept)
        return Texts(entry.value.texts if entry else ())

    async def clear(self, ctx: Context) -> None:
        """Forget everything of a tenant."""
        await ctx.state.clear()

    def replayed(self) -> list[str]:
        return [text for _, text, replaying in self.runs if replaying]


@pytest.fixture
async def replays(control: Bus) -> Replays:
    return Replays(control)


@pytest.fixture
async def book(mesh: Mesh, request: pytest.FixtureRequest) -> AsyncIterator[Book]:
    name = request.node.name.removeprefix("test_").split("[")[0][:40].rstrip("_")
    book = Book(name)
    running = mesh.start(mesh.worker(book.service))
    yield book
    await running.stop()


async def write(program: Program, book: Book, *texts: str, action: str = "write") -> None:
    for text in texts:
        await program.client.publish(f"{book.service.name}.{action}", {"text": text})


async def reads(program: Program, book: Book, *texts: str) -> bool:
    return await program.texts(book.service.name) == list(texts)


async def ended(replays: Replays, asked: Replay, state: str = "done") -> Replay:
    async with asyncio.timeout(30):
        last = [each async for each in replays.follow(asked, frozenset({state}))][-1]
    assert last.state == state, last
    return last


async def test_a_replay_handles_everything_again_in_order(
    acme: Program, book: Book, replays: Replays
) -> None:
    texts = [str(number) for number in range(30)]
    await write(acme, book, *texts)
    await eventually(lambda: reads(acme, book, *texts))
    done = await ended(replays, await replays.ask(acme.id, book.service.name, by="me"))
    assert book.replayed() == texts
    assert (done.handled, done.failed, done.by) == (30, 0, "me")
    assert await reads(acme, book, *texts)


async def test_the_state_is_cleared_before_it_begins(
    acme: Program, book: Book, replays: Replays, control: Bus
) -> None:
    await write(acme, book, "a", "b")
    await eventually(lambda: reads(acme, book, "a", "b"))
    await _corrupt(control, acme.id, book.service.name)
    assert not await reads(acme, book, "a", "b")
    await ended(replays, await replays.ask(acme.id, book.service.name, by="me"))
    assert await reads(acme, book, "a", "b")


async def test_without_a_reset_it_adds_to_what_is_there(
    acme: Program, book: Book, replays: Replays
) -> None:
    await write(acme, book, "a", "b")
    await eventually(lambda: reads(acme, book, "a", "b"))
    asked = await replays.ask(acme.id, book.service.name, by="me", reset=False)
    await ended(replays, asked)
    assert await reads(acme, book, "a", "b", "a", "b")


async def test_what_handlers_emit_is_held_back(
    acme: Program, book: Book, replays: Replays, control: Bus
) -> None:
    await write(acme, book, "a", "b")
    await eventually(lambda: reads(acme, book, "a", "b"))
    done = await ended(replays, await replays.ask(acme.id, book.service.name, by="me"))
    assert done.suppressed == 2
    assert len(await journal(control, acme.id, f"{book.service.name}.written")) == 2


async def test_a_handler_that_is_not_replayable_is_left_out(
    acme: Program, book: Book, replays: Replays
) -> None:
    await write(acme, book, "a")
    await write(acme, book, "b", action="once")
    await eventually(lambda: reads(acme, book, "a", "b"))
    done = await ended(replays, await replays.ask(acme.id, book.service.name, by="me"))
    assert (done.handled, done.passed) == (1, 1)
    assert await reads(acme, book, "a")


async def test_a_range_is_replayed_alone(
    acme: Program, book: Book, replays: Replays, control: Bus
) -> None:
    await write(acme, book, "a", "b", "c", "d")
    await eventually(lambda: reads(acme, book, "a", "b", "c", "d"))
    seqs = [each.seq for each in await journal(control, acme.id, f"{book.service.name}.write")]
    asked = await replays.ask(
        acme.id, book.service.name, by="me", since=seqs[1], until=seqs[3], skip=(seqs[2],)
    )
    await ended(replays, asked)
    assert book.replayed() == ["b"]


async def test_live_messages_wait_and_follow_in_order(
    mesh: Mesh, acme: Program, book: Book, replays: Replays
) -> None:
    await write(acme, book, "a", "b", "c")
    await eventually(lambda: reads(acme, book, "a", "b", "c"))
    book.gate.clear()
    asked = await replays.ask(acme.id, book.service.name, by="me")
    await eventually(lambda: _is(replays, asked, "running"))
    await write(acme, book, "d", "e", "f")
    await mesh.set(book.gate)
    await ended(replays, asked)
    await eventually(lambda: reads(acme, book, "a", "b", "c", "d", "e", "f"))
    assert [run[1:] for run in book.runs[3:]] == [
        *(("a", True), ("b", True), ("c", True)),
        *(("d", False), ("e", False), ("f", False)),
    ]


async def test_other_tenants_go_on_meanwhile(mesh: Mesh, book: Book, replays: Replays) -> None:
    async with mesh.neighbours() as (one, two):
        await write(one, book, "a")
        await eventually(lambda: reads(one, book, "a"))
        asked = await replays.ask(one.id, book.service.name, by="me", rate=0.5)
        await eventually(lambda: _is(replays, asked, "running"))
        await write(two, book, "x", "y")
        await eventually(lambda: reads(two, book, "x", "y"))
        await ended(replays, asked)
        assert await reads(one, book, "a")


async def test_afterwards_the_tenant_goes_with_its_lane_again(
    acme: Program, book: Book, replays: Replays
) -> None:
    await write(acme, book, "a")
    await eventually(lambda: reads(acme, book, "a"))
    await ended(replays, await replays.ask(acme.id, book.service.name, by="me"))
    await write(acme, book, "b", "c")
    await eventually(lambda: reads(acme, book, "a", "b", "c"))


async def test_one_replay_at_a_time(
    mesh: Mesh, acme: Program, book: Book, replays: Replays
) -> None:
    await write(acme, book, "a")
    await eventually(lambda: reads(acme, book, "a"))
    book.gate.clear()
    first = await replays.ask(acme.id, book.service.name, by="me")
    with pytest.raises(errors.Conflict, match="under way"):
        await replays.ask(acme.id, book.service.name, by="another")
    await mesh.set(book.gate)
    await ended(replays, first)
    await ended(replays, await replays.ask(acme.id, book.service.name, by="another"))


async def test_a_replay_can_be_cancelled(acme: Program, book: Book, replays: Replays) -> None:
    await write(acme, book, *"abcdefgh")
    await eventually(lambda: reads(acme, book, *"abcdefgh"))
    asked = await replays.ask(acme.id, book.service.name, by="me", rate=2, reset=False)
    await eventually(lambda: _is(replays, asked, "running"))
    await replays.cancel(acme.id, book.service.name)
    done = await ended(replays, asked, "cancelled")
    assert done.handled < 8
    await write(acme, book, "live")
    await eventually(lambda: _last(acme, book, "live"))


async def test_one_that_nobody_has_begun_can_be_cancelled(
    mesh: Mesh, acme: Program, replays: Replays
) -> None:
    book = Book("begun_by_nobody")
    await mesh.start(mesh.worker(book.service)).stop()
    asked = await replays.ask(acme.id, "begun_by_nobody", by="me")
    assert (await replays.cancel(acme.id, "begun_by_nobody")).state == "cancelled"
    running = mesh.start(mesh.worker(book.service))
    await write(acme, book, "a")
    await eventually(lambda: reads(acme, book, "a"))
    assert await _is(replays, asked, "cancelled")
    await running.stop()


async def test_what_fails_in_a_replay_is_left_out_and_told(
    acme: Program, book: Book, replays: Replays, control: Bus
) -> None:
    await write(acme, book, "a", "b", "c")
    await eventually(lambda: reads(acme, book, "a", "b", "c"))
    book.wrong = "b"
    done = await ended(replays, await replays.ask(acme.id, book.service.name, by="me"))
    seqs = [each.seq for each in await journal(control, acme.id, f"{book.service.name}.write")]
    assert (done.handled, done.failed, done.failures) == (2, 1, (seqs[1],))
    assert await reads(acme, book, "a", "c")


async def test_another_replica_goes_on_where_one_stopped(
    mesh: Mesh, acme: Program, replays: Replays
) -> None:
    name = "carried_on"
    first = Book(name)
    running = mesh.start(mesh.worker(first.service))
    texts = [str(number) for number in range(12)]
    await write(acme, first, *texts)
    await eventually(lambda: reads(acme, first, *texts))
    asked = await replays.ask(acme.id, name, by="me", rate=4)
    await eventually(lambda: _handled(replays, asked, 3))
    await running.stop()
    second = Book(name)
    running = mesh.start(mesh.worker(second.service))
    done = await ended(replays, asked)
    assert done.handled == 12
    assert first.replayed() + second.replayed() == texts
    assert await reads(acme, second, *texts)
    await running.stop()


async def test_a_recovery_fills_a_namespace_of_its_own_until_it_is_confirmed(
    acme: Program, book: Book, replays: Replays, control: Bus
) -> None:
    name = book.service.name
    await write(acme, book, "a", "b", "bad", "c")
    await eventually(lambda: reads(acme, book, "a", "b", "bad", "c"))
    seqs = [each.seq for each in await journal(control, acme.id, f"{name}.write")]
    asked = await replays.ask(acme.id, name, by="me", until=seqs[2], recovery=True)
    ready = await ended(replays, asked, "ready")
    assert await reads(acme, book, "a", "b", "bad", "c")
    (difference,) = await replays.differences(ready)
    assert difference.name == "kept"
    assert difference.after == b'{"texts":["a","b"],"ids":[]}'
    await replays.swap(acme.id, name)
    await ended(replays, asked)
    await eventually(lambda: reads(acme, book, "a", "b"))
    await write(acme, book, "d")
    await eventually(lambda: reads(acme, book, "a", "b", "d"))


async def test_a_recovery_to_now_misses_nothing_that_comes_before_it_is_confirmed(
    acme: Program, book: Book, replays: Replays
) -> None:
    name = book.service.name
    await write(acme, book, "a", "b")
    await eventually(lambda: reads(acme, book, "a", "b"))
    asked = await replays.ask(acme.id, name, by="me", recovery=True)
    await ended(replays, asked, "ready")
    await write(acme, book, "c", "d")
    await eventually(lambda: reads(acme, book, "a", "b", "c", "d"))
    await replays.swap(acme.id, name)
    await ended(replays, asked)
    await write(acme, book, "e")
    await eventually(lambda: reads(acme, book, "a", "b", "c", "d", "e"))


async def test_one_can_go_back_from_a_recovery(
    acme: Program, book: Book, replays: Replays, control: Bus
) -> None:
    name = book.service.name
    await write(acme, book, "a", "b")
    await eventually(lambda: reads(acme, book, "a", "b"))
    seqs = [each.seq for each in await journal(control, acme.id, f"{name}.write")]
    asked = await replays.ask(acme.id, name, by="me", until=seqs[1], recovery=True)
    await ended(replays, asked, "ready")
    await replays.swap(acme.id, name)
    await ended(replays, asked)
    await eventually(lambda: reads(acme, book, "a"))
    await replays.back(acme.id, name)
    await eventually(lambda: reads(acme, book, "a", "b"))


def shadow(replay: Replay) -> str:
    return prefix(replay.tenant, replay.service, replay.generation or 0)


async def test_a_recovery_that_is_not_wanted_is_thrown_away(
    acme: Program, book: Book, replays: Replays, control: Bus
) -> None:
    await write(acme, book, "a")
    await eventually(lambda: reads(acme, book, "a"))
    asked = await replays.ask(acme.id, book.service.name, by="me", recovery=True)
    ready = await ended(replays, asked, "ready")
    await replays.cancel(acme.id, book.service.name)
    await ended(replays, asked, "cancelled")
    assert await keys_of(control, shadow(ready))
    await replays.forget(acme.id, book.service.name, ready.generation)
    assert not await keys_of(control, shadow(ready))
    assert await reads(acme, book, "a")


@pytest.mark.parametrize("recovery", [False, True])
async def test_what_nobody_threw_away_is_thrown_away_by_the_next_one(
    acme: Program, book: Book, replays: Replays, control: Bus, *, recovery: bool
) -> None:
    await write(acme, book, "a")
    await eventually(lambda: reads(acme, book, "a"))
    asked = await replays.ask(acme.id, book.service.name, by="me", recovery=True)
    await ended(replays, asked, "ready")
    await replays.cancel(acme.id, book.service.name)
    await ended(replays, asked, "cancelled")
    assert await keys_of(control, shadow(asked))
    later = await replays.ask(acme.id, book.service.name, by="me", recovery=recovery)
    await ended(replays, later, "ready" if recovery else "done")
    assert not await keys_of(control, shadow(asked))


async def test_the_live_state_and_the_former_one_are_not_thrown_away(
    acme: Program, book: Book, replays: Replays
) -> None:
    await write(acme, book, "a")
    await eventually(lambda: reads(acme, book, "a"))
    name = book.service.name
    asked = await replays.ask(acme.id, name, by="me", recovery=True)
    await ended(replays, asked, "ready")
    await replays.swap(acme.id, name)
    await ended(replays, asked)
    for generation in (asked.generation, 0):
        await replays.forget(acme.id, name, generation)
    await eventually(lambda: reads(acme, book, "a"))
    await replays.back(acme.id, name)
    await eventually(lambda: reads(acme, book, "a"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"actions": ["x.y"]}, "can't replay x.y"),
        ({"since": 5, "until": 5}, "nothing"),
    ],
)
async def test_what_cannot_be_replayed_is_refused(
    acme: Program, book: Book, replays: Replays, options: dict[str, object], told: str
) -> None:
    with pytest.raises(errors.BadMessage, match=told):
        await replays.ask(acme.id, book.service.name, by="me", **options)  # type: ignore[arg-type]


async def test_a_service_that_nobody_knows_is_refused(acme: Program, replays: Replays) -> None:
    with pytest.raises(errors.NotFound, match="no service nobody"):
        await replays.ask(acme.id, "nobody", by="me")


async def _corrupt(control: Bus, tenant: str, service: str) -> None:
    from tenantry.context.state import State

    await State(control, tenant, service).put("kept", Kept(("corrupt",)))


async def _is(replays: Replays, asked: Replay, state: str) -> bool:
    now = await replays.get(asked.tenant, asked.service)
    return now is not None and now.state == state


async def _handled(replays: Replays, asked: Replay, count: int) -> bool:
    now = await replays.get(asked.tenant, asked.service)
    return now is not None and now.handled >= count


async def _last(program: Program, book: Book, text: str) -> bool:
    texts = await program.texts(book.service.name)
    return bool(texts) and texts[-1] == text
