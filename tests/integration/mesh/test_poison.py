"""Messages whose beginnings nobody saw the end of: given up in the end, and nobody else is harmed.

The checkpoints say that workers have died; none of them does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from msgspec.structs import replace

from tenantry.bus import Bus
from tenantry.delivery.settlement import LOST_MORE
from tenantry.messages.checkpoints import Checkpoint
from tenantry.subjects import partition
from tests.integration.mesh.counting import QUICK, Counting, Owners, prepared
from tests.mesh import Mesh, Program, Running, eventually

LOST = QUICK.tries + LOST_MORE - 1
"""Beginnings that nobody saw the end of after which a message is given up."""


class Poison:
    """A service that was stopped in order, while messages of it wait."""

    def __init__(self, mesh: Mesh, control: Bus, name: str, *, gate: bool = False) -> None:
        self.mesh = mesh
        self.counting = Counting(name, gate=gate)
        self.owners = Owners(control, name)

    async def stored(self, program: Program, *texts: str, passes: bool = False) -> list[int]:
        return await self.counting.send(program, *texts, passes=passes)

    async def blame(self, program: Program, begun: Mapping[int, int]) -> None:
        """Let the checkpoint count so many beginnings of these messages."""

        def blamed(found: Checkpoint) -> Checkpoint:
            return replace(found, begun={**found.begun, **begun})

        await self.owners.change(partition(program.id), blamed)

    def start(self) -> Running:
        return self.mesh.start(self.mesh.worker(self.counting.service))


async def poison(
    mesh: Mesh, control: Bus, name: str, program: Program, *, gate: bool = False
) -> Poison:
    it = Poison(mesh, control, name, gate=gate)
    await prepared(mesh, it.counting, it.owners, program)
    return it


async def test_what_was_lost_too_often_is_a_dead_letter_and_never_runs(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    it = await poison(mesh, control, "lost_too_often", acme)
    (bad, _) = await it.stored(acme, "bad", "good")
    await it.blame(acme, {bad: LOST})
    running = it.start()
    await it.counting.has(acme, "good")
    letter = await it.owners.letter(acme.id)
    assert f"lost {LOST} times" in letter.about.detail
    assert letter.about.seq == bad
    assert it.counting.runs("bad") == 0
    await running.stop()


async def test_what_was_lost_less_often_runs_once_more(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    it = await poison(mesh, control, "lost_less_often", acme)
    (odd, _) = await it.stored(acme, "odd", "good")
    await it.blame(acme, {odd: LOST - 1})
    running = it.start()
    await it.counting.has(acme, "odd", "good")
    assert it.counting.runs("odd") == 1
    assert await it.owners.letters(acme.id) == []
    await running.stop()
    assert (await it.owners.checkpoint(partition(acme.id))).begun == {}


async def test_a_beginning_of_a_suspect_is_stored_before_it_begins(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    it = await poison(mesh, control, "stored_before", acme, gate=True)
    (odd,) = await it.stored(acme, "odd")
    await it.blame(acme, {odd: 1})
    running = it.start()
    await it.counting.begins("odd")
    assert (await it.owners.checkpoint(partition(acme.id))).begun == {odd: 2}
    await mesh.set(it.counting.gate)
    await it.counting.has(acme, "odd")
    await running.stop()


async def test_a_suspect_loses_no_try(mesh: Mesh, control: Bus, acme: Program) -> None:
    it = await poison(mesh, control, "loses_no_try", acme)
    (odd,) = await it.stored(acme, "odd")
    await it.blame(acme, {odd: 1})
    it.counting.wrong.add("odd")
    running = it.start()
    letter = await it.owners.letter(acme.id)
    assert it.counting.runs("odd") == QUICK.tries
    assert "lost" not in letter.about.detail
    await running.stop()


async def test_beside_a_lone_suspect_the_healthy_go_on(mesh: Mesh, control: Bus) -> None:
    async with mesh.neighbours() as (acme, globex), mesh.program() as far:
        it = await poison(mesh, control, "beside_a_lone_one", acme, gate=True)
        (odd,) = await it.stored(acme, "odd")
        await it.blame(acme, {odd: 2})
        running = it.start()
        await it.counting.begins("odd")
        for program in (globex, far):
            await it.stored(program, "good", passes=True)
            await it.counting.has(program, "good")
        await mesh.set(it.counting.gate)
        await it.counting.has(acme, "odd")
        await running.stop()


async def test_two_lone_suspects_run_one_after_the_other(mesh: Mesh, control: Bus) -> None:
    async with mesh.neighbours() as (acme, globex):
        it = await poison(mesh, control, "one_by_one", acme, gate=True)
        (odd,) = await it.stored(acme, "odd")
        (other,) = await it.stored(globex, "other")
        await it.blame(acme, {odd: 2, other: 2})
        running = it.start()

        async def one_runs() -> bool:
            return len(it.counting.ran) == 1

        await eventually(one_runs)
        await it.stored(globex, "later", passes=True)
        await it.stored(acme, "later", passes=True)
        ended = asyncio.create_task(_counts(it, {acme: "odd", globex: "other"}))
        assert await one_runs()
        await mesh.set(it.counting.gate)
        await ended
        assert await it.owners.letters(acme.id) == []
        assert await it.owners.letters(globex.id) == []
        await running.stop()


async def _counts(it: Poison, first: Mapping[Program, str]) -> None:
    for program, text in first.items():
        await it.counting.has(program, text, "later")


async def test_a_lone_suspect_that_fails_lets_the_others_run_meanwhile(
    mesh: Mesh, control: Bus
) -> None:
    async with mesh.neighbours() as (acme, globex), mesh.program() as far:
        it = await poison(mesh, control, "fails_alone", acme)
        (odd,) = await it.stored(acme, "odd")
        (other,) = await it.stored(globex, "other")
        (third,) = await it.stored(far, "third")
        it.counting.wrong.add("odd")
        await it.blame(acme, {odd: 3, other: 2})
        await it.blame(far, {third: 2})
        running = it.start()
        await it.counting.has(globex, "other")
        await it.counting.has(far, "third")
        await it.owners.letter(acme.id)
        assert await it.owners.letters(globex.id) == []
        await running.stop()


async def test_a_lone_suspect_that_is_erased_holds_nobody_up(mesh: Mesh, control: Bus) -> None:
    async with mesh.neighbours() as (acme, globex):
        it = await poison(mesh, control, "erased_alone", acme)
        (odd,) = await it.stored(acme, "odd")
        (other,) = await it.stored(globex, "other")
        await it.blame(acme, {odd: 2, other: 2})
        await control.call(
            "$JS.API.STREAM.MSG.DELETE.JOURNAL", b'{"seq": %d, "no_erase": true}' % odd
        )
        running = it.start()
        await it.counting.has(globex, "other")
        await it.stored(acme, "good")
        await it.counting.has(acme, "good")
        await running.stop()


async def test_after_an_unclean_end_no_innocent_is_blamed(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    it = await poison(mesh, control, "innocent", acme)
    await it.stored(acme, *"abcdefghijkl")
    await it.owners.change(partition(acme.id), lambda found: replace(found, owner="gone-1"))
    running = it.start()
    await it.counting.has(acme, *"abcdefghijkl")
    assert [text for _, text in it.counting.ran] == list("abcdefghijkl")
    assert set(it.counting.attempts.values()) == {1}
    await running.stop()
    assert (await it.owners.checkpoint(partition(acme.id))).begun == {}
