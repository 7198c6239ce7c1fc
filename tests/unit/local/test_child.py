from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tenantry.errors import SetupError
from tenantry.local import child as module
from tenantry.local.child import Child, Spec
from tenantry.local.logfile import LogFile

READY = 'echo "ready x" >&$TENANTRY_READY_FD; '
SERVE = READY + "exec sleep 60"
Make = Callable[..., Child]


@pytest.fixture
async def said() -> list[str]:
    return []


@pytest.fixture
async def make(tmp_path: Path, said: list[str]) -> AsyncIterator[Make]:
    """Makes children that run a shell script; all are stopped at the end."""
    made: list[Child] = []

    def make(script: str, *, drain: float = 5.0) -> Child:
        spec = Spec(
            name="it",
            command=("bash", "-c", script),
            cwd=tmp_path,
            env=dict(os.environ),
            drain=drain,
        )
        child = Child(spec, LogFile(tmp_path / "it.log"), changed=lambda: None, say=said.append)
        made.append(child)
        return child

    yield make
    for child in made:
        child.kill()
        await child.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_start_returns_when_the_child_says_that_it_is_ready(make: Make) -> None:
    child = make("sleep 0.2; " + SERVE)
    began = time.monotonic()
    await child.start()
    assert time.monotonic() - began > 0.2
    assert child.status.state == "ready"


async def test_a_child_that_ends_at_its_first_start_fails_with_its_last_line(make: Make) -> None:
    with pytest.raises(SetupError, match="it: exit code 3: no such thing"):
        await make("echo first; echo no such thing >&2; exit 3").start()


async def test_a_child_that_says_why_it_fails_is_quoted(make: Make) -> None:
    with pytest.raises(SetupError) as caught:
        await make(
            'echo "failed setup: no (really)" >&$TENANTRY_READY_FD; echo noise; exit 1'
        ).start()
    assert caught.value.message == "it: no (really)"


async def test_a_program_that_is_not_there_fails(tmp_path: Path) -> None:
    spec = Spec(name="it", command=("/no/such/program",), cwd=tmp_path, env={})
    child = Child(spec, LogFile(tmp_path / "log"), changed=lambda: None, say=print)
    with pytest.raises(SetupError, match="it can't be started: No such file"):
        await child.start()


async def test_a_child_that_is_not_ready_in_time_fails(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_PATIENCE", 0.1)
    with pytest.raises(SetupError, match="it is not ready after"):
        await make("exec sleep 60").start()


async def test_a_child_that_takes_long_is_told_of_and_awaited(
    make: Make, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "TELL_EVERY", 0.05)
    starting = asyncio.create_task(
        make(f"until test -e {tmp_path}/go; do sleep 0.01; done; {SERVE}").start()
    )
    await until(lambda: len(said) > 1)
    (tmp_path / "go").touch()
    await starting
    assert {line.partition(",")[0] for line in said} == {"it is not ready yet"}


async def test_a_child_that_dies_is_started_again(make: Make, said: list[str]) -> None:
    child = make(SERVE)
    await child.start()
    assert child.status.pid is not None
    os.kill(child.status.pid, signal.SIGKILL)
    await until(lambda: child.status.restarts == 1 and child.status.state == "ready")
    assert said == ["it ended (SIGKILL), starting it again in 0.2 s", "it is ready again"]


async def test_the_backoff_doubles(make: Make, said: list[str], tmp_path: Path) -> None:
    once = tmp_path / "once"
    child = make(f"test -e {once} && exit 7; touch {once}; {READY} sleep 0.5; exit 7")
    await child.start()
    await until(lambda: len(said) == 3)
    delays = [line.partition("again in ")[2] for line in said]
    assert delays == ["0.2 s", "0.4 s", "0.8 s"]


async def test_stop_ends_a_backoff(make: Make) -> None:
    child = make(READY + "sleep 0.1")
    await child.start()
    await until(lambda: child.status.state == "backoff")
    async with asyncio.timeout(0.15):
        await child.stop()
    assert child.status.state == "stopped"


async def test_stop_while_it_starts_ends_the_start(make: Make) -> None:
    child = make("exec sleep 60")
    starting = asyncio.create_task(child.start())
    await until(lambda: child.status.state == "starting")
    await child.stop()
    async with asyncio.timeout(1):
        await starting


async def test_a_child_that_ignores_sigterm_is_killed_after_its_drain(
    make: Make, said: list[str]
) -> None:
    child = make("trap '' TERM; " + READY + "while :; do sleep 0.1; done", drain=0.3)
    await child.start()
    await child.stop()
    assert child.status.state == "stopped"
    assert said == ["it does not stop within 0.3 s: killed"]


async def test_what_a_child_has_started_dies_with_it(make: Make, tmp_path: Path) -> None:
    child = make("sleep 60 >/dev/null 2>&1 & echo $! > stray; " + SERVE)
    await child.start()
    stray = int((tmp_path / "stray").read_text())
    await child.stop()
    await until(lambda: not Path(f"/proc/{stray}").exists() or _dead(stray))


async def test_the_log_holds_both_outputs(make: Make, tmp_path: Path) -> None:
    child = make("echo out; echo err >&2; printf unfinished; " + READY + "sleep 0.3")
    await child.start()
    await until(lambda: "unfinished" in (tmp_path / "it.log").read_text())
    assert (tmp_path / "it.log").read_text().splitlines()[:3] == ["out", "err", "unfinished"]


def _dead(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
