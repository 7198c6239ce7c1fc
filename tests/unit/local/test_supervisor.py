from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tenantry.errors import SetupError
from tenantry.local.child import Spec
from tenantry.local.state import StateFolder
from tenantry.local.supervisor import Supervisor

SERVE = (
    "trap 'echo stop $0 >> story; exit 0' TERM; echo start $0 >> story; "
    "echo ready >&$TENANTRY_READY_FD; while :; do sleep 0.02; done"
)


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder.open(tmp_path / "state")


def spec(folder: StateFolder, name: str, script: str = SERVE) -> Spec:
    return Spec(
        name=name, command=("bash", "-c", script, name), cwd=folder.path, env=dict(os.environ)
    )


def story(folder: StateFolder) -> list[str]:
    return (folder.path / "story").read_text().splitlines()


def supervisor(folder: StateFolder, *stages: list[Spec]) -> Supervisor:
    return Supervisor(folder, "nats://here", stages, say=lambda _: None)


async def test_stages_start_in_order_and_stop_in_reverse(folder: StateFolder) -> None:
    stop = asyncio.Event()
    run = supervisor(folder, [spec(folder, "a")], [spec(folder, "b")], [spec(folder, "c")])
    await run.run(stop, ready=stop.set)
    assert story(folder) == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


async def test_a_child_that_fails_at_its_start_stops_the_others(folder: StateFolder) -> None:
    run = supervisor(folder, [spec(folder, "a")], [spec(folder, "b", "echo oh no; exit 1")])
    with pytest.raises(SetupError, match="b: exit code 1: oh no"):
        await run.run(asyncio.Event(), ready=lambda: None)
    assert story(folder) == ["start a", "stop a"]


async def test_stop_while_it_starts_stops_what_runs(folder: StateFolder) -> None:
    stop, said = asyncio.Event(), []
    run = supervisor(folder, [spec(folder, "a")], [spec(folder, "b", "exec sleep 60")])
    running = asyncio.create_task(run.run(stop, ready=lambda: said.append("ready")))
    async with asyncio.timeout(10):
        while not (folder.path / "story").exists():
            await asyncio.sleep(0.01)
        stop.set()
        await running
    assert (story(folder), said) == (["start a", "stop a"], [])


async def test_while_it_runs_the_folder_says_what(folder: StateFolder) -> None:
    stop, seen = asyncio.Event(), []

    def ready() -> None:
        seen.append(folder.running())
        stop.set()

    await supervisor(folder, [spec(folder, "a")]).run(stop, ready=ready)
    running = seen[0]
    assert running is not None
    assert (running.supervisor, running.url, running.state) == (os.getpid(), "nats://here", "ready")
    assert [(each.name, each.state) for each in running.children] == [("a", "ready")]


async def test_afterwards_the_folder_says_that_nothing_runs(folder: StateFolder) -> None:
    stop = asyncio.Event()
    await supervisor(folder, [spec(folder, "a")]).run(stop, ready=stop.set)
    assert folder.running() is None


async def test_kill_ends_a_child_that_does_not_stop(folder: StateFolder) -> None:
    stop = asyncio.Event()
    stubborn = "trap '' TERM; echo ready >&$TENANTRY_READY_FD; while :; do sleep 0.1; done"
    run = supervisor(folder, [spec(folder, "a", stubborn)])

    def ready() -> None:
        stop.set()
        asyncio.get_running_loop().call_later(0.2, run.kill)

    async with asyncio.timeout(5):
        await run.run(stop, ready=ready)
