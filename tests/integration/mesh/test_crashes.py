"""Processes that die, stop and hang: what was acknowledged counts once, in order, all the same."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from tenantry.bus import Bus
from tenantry.delivery.settlement import LOST_MORE
from tests.integration.mesh.probe import Probe, Run, probe
from tests.mesh import Mesh, Program, eventually

TRIES = 1

pytestmark = pytest.mark.slow


class Sending:
    """Sends numbered commands until told to stop."""

    def __init__(self, it: Probe, program: Program) -> None:
        self._it = it
        self._program = program
        self.sent = 0
        self._over = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._over:
            await self._it.send(self._program, self.sent)
            await self._it.send(self._program, self.sent, action="note")
            self.sent += 1
            await eventually(self._keeps_up, within=60.0)

    async def _keeps_up(self) -> bool:
        """Whether little waits: the longer the load lasts, the longer all of it takes."""
        runs = self._it.runs(self._program.id)
        return self._over or (bool(runs) and self.sent - runs[-1].number < 30)

    async def stop(self) -> list[int]:
        """All numbers that were sent."""
        self._over = True
        await self._task
        return list(range(self.sent))


def check_order(runs: Iterable[Run], sent: list[int]) -> None:
    """Each ran at least once, and none before all that come before it."""
    reached = -1
    for run in runs:
        assert run.number <= reached + 1, f"{run.number} has overtaken {reached + 1}"
        reached = max(reached, run.number)
    assert reached == sent[-1]


async def test_five_kills_lose_nothing_and_count_nothing_twice(
    mesh: Mesh, control: Bus, tmp_path: Path
) -> None:
    async with (
        mesh.program() as acme,
        mesh.program() as globex,
        probe(mesh, tmp_path, "killed", control, replicas=2) as it,
    ):
        loads = {acme: Sending(it, acme), globex: Sending(it, globex)}
        for turn in range(5):
            victim = (acme, globex)[turn % 2]
            before = len(it.runs(victim.id))
            await eventually(partial(_ran, it, victim, before + 20), within=30.0)
            await it.end(it.process(it.runs(victim.id)[-1].pid))
            await it.start()
        for program, load in loads.items():
            sent = await load.stop()
            await it.has(program, sent)

            async def noted(program: Program = program, last: int = sent[-1]) -> bool:
                return it.runs(program.id, "note")[-1].number == last

            await eventually(noted)
            check_order(it.runs(program.id), sent)
            check_order(it.runs(program.id, "note"), sent)
            assert await it.owners.letters(program.id) == []


async def _ran(it: Probe, program: Program, count: int) -> bool:
    pids = {process.pid for process in it.fleet.running}
    runs = it.runs(program.id)
    return len(runs) >= count and runs[-1].pid in pids


async def test_what_a_process_does_that_was_stopped_does_not_count(
    mesh: Mesh, control: Bus, acme: Program, tmp_path: Path
) -> None:
    async with probe(mesh, tmp_path, "stopped", control, replicas=2) as it:
        await it.send(acme, 0, "wait")
        await it.send(acme, 1)
        first = await it.begins(acme, 0)
        os.kill(first.pid, signal.SIGSTOP)
        try:
            second = await it.begins(acme, 0, times=2)
            assert second.pid != first.pid
            await it.owners.shared(1)
            await it.has(acme, [0, 1])
        finally:
            os.kill(first.pid, signal.SIGCONT)
        log = it.process(first.pid).log

        async def knows() -> bool:
            return "fenced" in log.read_text()

        await eventually(knows)
        await it.owners.shared(2)  # it is back, with another lease
        await it.send(acme, 2)
        await it.has(acme, [0, 1, 2])
        assert len(it.runs(acme.id)) == 4
        assert await it.owners.letters(acme.id) == []


async def test_a_handler_that_kills_its_process_is_given_up_and_harms_no_other(
    mesh: Mesh, control: Bus, tmp_path: Path
) -> None:
    async with (
        mesh.neighbours() as (acme, globex),
        mesh.program() as far,
        probe(mesh, tmp_path, "deadly", control, replicas=2) as it,
    ):
        keeping = asyncio.create_task(keep_running(it, 2))
        await it.send(acme, 0)
        await it.send(acme, 1, "die")
        await it.send(acme, 2)
        for number in range(30):
            for program in (globex, far):
                await it.send(program, number)
        letter = await it.owners.letter(acme.id)
        assert "lost" in letter.about.detail
        deaths = [run for run in it.runs(acme.id) if run.number == 1]
        assert len(deaths) <= TRIES + LOST_MORE
        await it.has(acme, [0, 2])
        for program in (globex, far):
            await it.has(program, list(range(30)))
            assert await it.owners.letters(program.id) == []
        keeping.cancel()


async def keep_running(it: Probe, replicas: int) -> None:
    """Start another process for each one that has died, as a supervisor does."""
    while True:
        for process in list(it.fleet.running):
            if process._process.returncode is not None:
                it.fleet.running.remove(process)
        if len(it.fleet.running) < replicas:
            await it.start()
        await asyncio.sleep(0.05)


async def test_a_handler_that_blocks_is_given_up_and_the_log_names_its_line(
    mesh: Mesh, control: Bus, tmp_path: Path
) -> None:
    async with (
        mesh.neighbours() as (acme, globex),
        mesh.program() as far,
        # With two, one may end unseen: the other has slept as well and gives it its time again.
        probe(mesh, tmp_path, "blocking", control, replicas=3) as it,
    ):
        await it.send(acme, 0)
        await it.send(acme, 1, "block")
        await it.send(acme, 2)
        for number in range(10):
            for program in (globex, far):
                await it.send(program, number)
        letters = asyncio.create_task(eventually(lambda: _has_letter(it, acme), within=60.0))
        for program in (globex, far):
            await it.has(program, list(range(10)))
        await letters
        letter = await it.owners.letter(acme.id)
        assert "lost" in letter.about.detail
        assert len([run for run in it.runs(acme.id) if run.number == 1]) <= TRIES + LOST_MORE
        await it.has(acme, [0, 2])
        for program in (globex, far):
            assert await it.owners.letters(program.id) == []
        logs = "".join(process.log.read_text() for process in it.fleet.running)
        line = (tmp_path / "probe.py").read_text().splitlines().index("        time.sleep(7)") + 1
        assert "event loop blocked" in logs
        assert f"probe.py:{line} count" in logs


async def _has_letter(it: Probe, program: Program) -> bool:
    return len(await it.owners.letters(program.id)) == 1
