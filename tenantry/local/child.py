"""One child process that is kept alive: started, watched, started again with backoff, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tenantry.errors import SetupError
from tenantry.local import notify, processes
from tenantry.local.logfile import LogFile
from tenantry.local.state import ChildStatus

BACKOFF_FIRST = 0.2
BACKOFF_MAX = 10.0
SETTLED = 30.0
"""A child that has lived so long starts again at once when it ends, seconds."""

READY_PATIENCE = 300.0
"""Seconds that a child may take until it says that it is ready: a busy machine is slow."""
TELL_EVERY = 10.0
"""Seconds between two words that a child is not ready yet."""

_CHUNK = 65_536
_LAST_WORD = 0.1
_LONGEST_LINE = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to run.

    `probe` returns when the child is ready; without it, the child says so itself (see `notify`).
    """

    name: str
    command: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(repr=False)
    probe: Callable[[], Awaitable[None]] | None = None
    drain: float = 10.0
    """How long it may take to stop, seconds; then it is killed."""
    orphan_signal: signal.Signals = signal.SIGKILL
    """What it gets when we die without stopping it."""


class Child:
    """A process under supervision. Never raises once its first start has succeeded."""

    def __init__(
        self,
        spec: Spec,
        log: LogFile,
        *,
        changed: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self.spec = spec
        self.status = ChildStatus(name=spec.name, log=str(log.path))
        self._log = log
        self._changed = changed
        self._say = say
        self._stopping = asyncio.Event()
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start; returns when it is ready, or when it is stopped before.

        Raises :class:`SetupError` with its own words when it ends before.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._live())
        await self._first

    async def stop(self) -> None:
        """Stop: SIGTERM, and SIGKILL when it takes longer than its drain."""
        self._stopping.set()
        if self._task is None:
            return
        if self._process is not None:
            self._set(state="stopping")
            self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self._task}, timeout=self.spec.drain)
        if not done:
            self._say(f"{self.spec.name} does not stop within {self.spec.drain:g} s: killed")
            self.kill()
            await asyncio.wait({self._task}, timeout=5.0)

    def restart(self, why: str) -> None:
        """Have it end (SIGTERM, then SIGKILL after its drain); what ends is started again."""
        self._say(f"{self.spec.name} is restarted: {why}")
        self._signal(signal.SIGTERM)
        process = self._process

        def insist() -> None:
            if self._process is process:
                self._kill_group()

        asyncio.get_running_loop().call_later(self.spec.drain, insist)

    def kill(self) -> None:
        """SIGKILL to it and all that it has started."""
        self._stopping.set()
        self._kill_group()

    # --- inside --------------------------------------------------------------------------------

    async def _live(self) -> None:
        delay = BACKOFF_FIRST
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                why = await self._once()
            except OSError as error:
                why = f"it can't be started: {error.strerror or error}"
            if self._stopping.is_set():
                break
            if not self._first.done():
                # A child says the code of its error too, which is ours already.
                told = why.removeprefix(f"{SetupError.code}: ")
                self._first.set_exception(SetupError(f"{self.spec.name}: {told}"))
                break
            if time.monotonic() - began > SETTLED:
                delay = BACKOFF_FIRST
            self._say(f"{self.spec.name} ended ({why}), starting it again in {delay:g} s")
            self._set(state="backoff", why=why)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            delay = min(delay * 2, BACKOFF_MAX)
            self._set(restarts=self.status.restarts + 1)
        self._set(state="stopped", pid=None, birth="")
        self._log.close()
        if not self._first.done():
            self._first.set_result(None)

    async def _once(self) -> str:
        """One life, from start to end; says how it ended."""
        process, pipe = await self._spawn()
        output = asyncio.create_task(self._collect(process))
        ready = asyncio.create_task(self._ready(pipe))
        ended = asyncio.create_task(process.wait())
        why = ""
        try:
            await self._await_first(ready, ended)
            if ended.done():  # what it said at its end may be still on its way
                await asyncio.wait({ready}, timeout=_LAST_WORD)
            if ready.done():
                why = ready.result()
            elif not ended.done():
                why = f"it is not ready after {READY_PATIENCE:g} s"
                self._signal(signal.SIGKILL)
            serves = ready.done() and not why and not ended.done()
            if serves:
                self._serves()
            await ended
            await asyncio.wait({output}, timeout=1.0)
            return why or self._how(process.returncode, say_last=not serves)
        finally:
            self._kill_group()  # whatever it has left behind
            self._process = None
            for task in (output, ready):
                task.cancel()

    async def _await_first(self, *tasks: asyncio.Task[Any]) -> None:
        """Wait for one of these, at most for the patience; say now and then that it takes long."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < READY_PATIENCE:
            if waited >= TELL_EVERY:
                self._say(f"{self.spec.name} is not ready yet, after {waited:.0f} s")
            pause = min(TELL_EVERY, READY_PATIENCE - waited)
            done, _ = await asyncio.wait(tasks, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, int | None]:
        spec, env = self.spec, dict(self.spec.env)
        reading = writing = None
        if spec.probe is None:
            reading, writing = os.pipe()
            env[notify.VARIABLE] = str(writing)
        try:
            process = await asyncio.create_subprocess_exec(
                *spec.command,
                cwd=spec.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C on the terminal is for us, who stop in order
                preexec_fn=processes.die_with_parent(spec.orphan_signal),
                pass_fds=() if writing is None else (writing,),
            )
        except BaseException:
            if reading is not None:
                os.close(reading)
            raise
        finally:
            if writing is not None:
                os.close(writing)
        self._process = process
        born = processes.birth(process.pid) or ""
        self._set(state="starting", pid=process.pid, birth=born, started=round(time.time(), 3))
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        return process, reading

    async def _ready(self, pipe: int | None) -> str:
        """Return when the child is ready: nothing, or why it never will be."""
        if pipe is None:
            if self.spec.probe is not None:
                await self.spec.probe()
            return ""
        line = await _read_once(pipe)
        if not line:  # it closed the pipe without a word: its end will tell
            await asyncio.Event().wait()
        good, text = notify.read(line)
        return "" if good else text

    async def _collect(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        rest = b""
        while chunk := await process.stdout.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._log.write(line)
        if rest:
            self._log.write(rest)

    def _serves(self) -> None:
        self._set(state="ready", why="")
        if self._first.done():
            self._say(f"{self.spec.name} is ready again")
        else:
            self._first.set_result(None)

    def _how(self, code: int | None, *, say_last: bool) -> str:
        killed = code is not None and code < 0
        how = signal.Signals(-(code or 0)).name if killed else f"exit code {code}"
        last = self._log.last[-1] if say_last and self._log.last else ""
        return f"{how}: {last}" if last else how

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.send_signal(number)

    def _kill_group(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _set(self, **changes: object) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)
        self._changed()


async def _read_once(pipe: int) -> bytes:
    """The first that comes through a pipe: a whole line, as it is written at once; then close."""
    event_loop = asyncio.get_running_loop()
    came: asyncio.Future[bytes] = event_loop.create_future()

    def readable() -> None:
        if not came.done():
            came.set_result(os.read(pipe, _CHUNK))

    event_loop.add_reader(pipe, readable)
    try:
        return await came
    finally:
        event_loop.remove_reader(pipe)
        os.close(pipe)
