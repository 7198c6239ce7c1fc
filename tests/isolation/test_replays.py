"""A replay or a recovery of one tenant handles, fills and sets back nothing of another."""

from __future__ import annotations

import asyncio

import pytest

from tenantry import Context, Service, current, errors
from tenantry.bus import Bus
from tenantry.context.context import Staged
from tenantry.context.state import keys_of
from tenantry.messages import Declaration, Replay
from tenantry.replays import Replays
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import Kept, Note, Noted, Texts


class Ledger:
    """Writes down what it is told, and whose it was; in a replay it may try to act for another."""

    def __init__(self, name: str) -> None:
        service = self.service = Service(name, version="1.0.0")
        self.written = service.event("written", Noted)
        self.replayed: list[tuple[str, str, str]] = []
        self.victim = ""
        self.cancels = False
        self.kept: Context | None = None
        service.command("write", public=True, replayable=True)(self.write)
        service.request("texts", public=True)(self.texts)
        service.reset(self.clear)

    async def write(self, ctx: Context, note: Note) -> None:
        """Append a text."""
        if ctx.replaying:
            self.replayed.append((ctx.tenant, current().tenant, note.text))
            self.kept = ctx
            if self.victim:
                subject = f"tenant.{self.victim}.{ctx.service}.written"
                ctx._staged.append(Staged(subject, b'{"text": "crossed"}', "crossed"))
        entry = await ctx.state.get("kept", Kept)
        kept = entry.value if entry else Kept()
        await ctx.state.put("kept", Kept((*kept.texts, note.text), kept.ids))

    async def texts(self, ctx: Context) -> Texts:
        """What is written."""
        entry = await ctx.state.get("kept", Kept)
        return Texts(entry.value.texts if entry else ())

    async def clear(self, ctx: Context) -> None:
        """Forget everything of a tenant, or cancel itself."""
        if self.cancels and (task := asyncio.current_task()) is not None:
            task.cancel()
        await ctx.state.clear()


NAME = "replayed"


@pytest.fixture(scope="module")
def running(mesh: Mesh) -> Ledger:
    ledger = Ledger(NAME)
    mesh.start(mesh.worker(ledger.service))
    return ledger


@pytest.fixture
def ledger(running: Ledger) -> Ledger:
    running.replayed.clear()
    running.victim = ""
    running.cancels = False
    return running


async def fill(*programs: Program) -> None:
    """Three texts each, taking turns."""
    for number in range(3):
        for program in programs:
            await program.client.publish(f"{NAME}.write", {"text": f"{program.id}/{number}"})
    for program in programs:
        await eventually(lambda program=program: _has(program, 3))  # type: ignore[misc]


async def _has(program: Program, count: int) -> bool:
    return len(await program.texts(NAME)) == count


def own(program: Program) -> list[str]:
    return [f"{program.id}/{number}" for number in range(3)]


async def done(replays: Replays, asked: Replay, state: str = "done") -> Replay:
    async with asyncio.timeout(20):
        last = [each async for each in replays.follow(asked, frozenset({state}))][-1]
    assert last.state == state, last
    return last


@cannot(42, Layer.STORE)
async def test_a_replay_of_one_tenant_handles_nothing_of_another(
    mesh: Mesh, ledger: Ledger, control: Bus
) -> None:
    """Also where both share a partition, and the span is the whole journal."""
    async with mesh.neighbours() as (acme, globex):
        await fill(acme, globex)
        replays = Replays(control)
        await done(replays, await replays.ask(acme.id, NAME, by="me"))
        assert ledger.replayed == [(acme.id, acme.id, text) for text in own(acme)]
        assert await globex.texts(NAME) == own(globex)


@cannot(42, Layer.CLI)
async def test_a_replay_leaves_out_no_message_of_another_tenant(
    mesh: Mesh, ledger: Ledger, acme: Program, globex: Program, control: Bus
) -> None:
    await fill(acme, globex)
    theirs = (await journal(control, globex.id, f"{NAME}.write"))[0].seq
    with pytest.raises(errors.BadMessage, match="no message of"):
        await Replays(control).ask(acme.id, NAME, by="me", skip=(theirs,))


@cannot(2, Layer.GRAMMAR)
@cannot(3, Layer.GRAMMAR)
@pytest.mark.parametrize("tenant", ["*", ">", "a.b", ""])
async def test_a_replay_is_of_one_tenant(
    mesh: Mesh, ledger: Ledger, acme: Program, control: Bus, tenant: str
) -> None:
    await fill(acme)
    with pytest.raises(errors.Rejection):
        await Replays(control).ask(tenant, NAME, by="me")
    assert ledger.replayed == []


@cannot(42, Layer.STORE, without=Layer.CLI)
async def test_a_message_of_another_that_is_to_be_left_out_changes_nothing(
    mesh: Mesh,
    ledger: Ledger,
    acme: Program,
    globex: Program,
    control: Bus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await fill(acme, globex)
    theirs = (await journal(control, globex.id, f"{NAME}.write"))[0].seq
    replays = Replays(control)
    declared = await replays.check(acme.id, NAME)

    async def unchecked(*_: object, **__: object) -> Declaration:
        return declared

    monkeypatch.setattr(Replays, "check", unchecked)
    ended = await done(replays, await replays.ask(acme.id, NAME, by="me", skip=(theirs,)))
    assert (ended.handled, ended.passed) == (3, 0)
    assert {tenant for tenant, _, _ in ledger.replayed} == {acme.id}
    assert await globex.texts(NAME) == own(globex)


@can(42)
@can(65)
async def test_a_replay_handles_the_tenants_own_again(
    mesh: Mesh, ledger: Ledger, acme: Program, control: Bus
) -> None:
    await fill(acme)
    replays = Replays(control)
    ended = await done(replays, await replays.ask(acme.id, NAME, by="me"))
    assert (ended.handled, ended.failed) == (3, 0)
    assert await acme.texts(NAME) == own(acme)


@cannot(65, Layer.RUNTIME)
async def test_a_handler_in_a_replay_publishes_nothing_for_another(
    mesh: Mesh, ledger: Ledger, acme: Program, globex: Program, control: Bus
) -> None:
    await fill(acme, globex)
    before = await journal(control, globex.id)
    ledger.victim = globex.id
    replays = Replays(control)
    ended = await done(
        replays, await replays.ask(acme.id, NAME, by="me", skip=await first_two(control, acme))
    )
    assert ended.failed == 1
    assert await journal(control, globex.id) == before


@cannot(79, Layer.RUNTIME)
async def test_a_reset_hook_that_cancels_itself_fails_alone(
    mesh: Mesh, ledger: Ledger, control: Bus
) -> None:
    async with mesh.neighbours() as (acme, globex):
        await fill(acme, globex)
        ledger.cancels = True
        replays = Replays(control)
        asked = await replays.ask(acme.id, NAME, by="me", reset=True)
        await done(replays, asked, "failed")
        await globex.client.publish(f"{NAME}.write", {"text": "later"})
        await eventually(lambda: _has(globex, 4))


@cannot(65, Layer.RUNTIME)
async def test_a_context_of_a_replay_ends_with_its_message(
    mesh: Mesh, ledger: Ledger, acme: Program, control: Bus
) -> None:
    await fill(acme)
    replays = Replays(control)
    await done(replays, await replays.ask(acme.id, NAME, by="me"))
    assert ledger.kept is not None
    with pytest.raises(errors.TenantryError, match="has ended"):
        ledger.kept.emit(ledger.written, Noted("late"), on_replay=True)


@cannot(64, Layer.STORE)
async def test_a_recovery_fills_and_swaps_nothing_of_another(
    mesh: Mesh, ledger: Ledger, control: Bus
) -> None:
    async with mesh.neighbours() as (acme, globex):
        await fill(acme, globex)
        before = await keys_of(control, f"{globex.id}.")
        replays = Replays(control)
        asked = await replays.ask(acme.id, NAME, by="me", recovery=True)
        await done(replays, asked, "ready")
        await replays.swap(acme.id, NAME)
        await done(replays, asked)
        await replays.back(acme.id, NAME)
        assert await keys_of(control, f"{globex.id}.") == before
        assert await globex.texts(NAME) == own(globex)
        with pytest.raises(errors.NotFound):
            await replays.back(globex.id, NAME)


@cannot(64, Layer.STORE)
async def test_a_recovery_of_another_is_not_swapped_or_cancelled_by_its_neighbour(
    mesh: Mesh, ledger: Ledger, acme: Program, globex: Program, control: Bus
) -> None:
    await fill(acme, globex)
    replays = Replays(control)
    asked = await replays.ask(acme.id, NAME, by="me", recovery=True)
    await done(replays, asked, "ready")
    for change in (replays.swap, replays.cancel):
        with pytest.raises(errors.NotFound):
            await change(globex.id, NAME)
    await replays.cancel(acme.id, NAME)
    await done(replays, asked, "cancelled")


@can(64)
async def test_a_recovery_fills_the_tenants_own(
    mesh: Mesh, ledger: Ledger, acme: Program, control: Bus
) -> None:
    await fill(acme)
    replays = Replays(control)
    asked = await replays.ask(acme.id, NAME, by="me", recovery=True)
    await done(replays, asked, "ready")
    assert any("/1." in key for key in await keys_of(control, f"{acme.id}."))
    await replays.swap(acme.id, NAME)
    await done(replays, asked)
    assert await acme.texts(NAME) == own(acme)


async def first_two(control: Bus, program: Program) -> tuple[int, ...]:
    return tuple(each.seq for each in (await journal(control, program.id, f"{NAME}.write"))[:2])
