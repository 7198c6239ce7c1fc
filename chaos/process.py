"""One process of the world: started, killed, stopped, suspended, and watched in between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tenantry.local.processes import die_with_parent

START = 90.0
"""How long a process may take until it is ready, with all its tries, seconds."""

STOP = 15.0
"""How long it may take to end when it is told to, seconds."""

_TRY = 20.0
_POLL = 0.05

Ready = Callable[[], Awaitable[bool]]


class ProcessTrouble(Exception):
    """A process did what it must not: ended by itself, did not start, did not stop."""


class Process:
    """A command with its log; one fault at a time holds its `lock`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        ready: Ready | None = None,
        asked: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self.name = name
        self.lock = asyncio.Lock()
        self.log = folder / f"{name}.log"
        self.troubles: list[str] = []
        """What it did that no fault has asked for."""
        self._command = list(command)
        self._folder = folder
        self._ready = ready or self._says_ready
        self._asked = asked
        """Whether the process with this id was to end itself."""
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._from = 0

    async def start(self) -> None:
        """Start; returns when it is ready. Raises :class:`ProcessTrouble`.

        It is tried again and again, as any process manager would: NATS may be away.
        """
        until = time.monotonic() + START
        while True:
            await self._spawn()
            if await self._comes_up(min(until, time.monotonic() + _TRY)):
                self._watching = asyncio.create_task(self._watch())
                return
            await self._end(signal.SIGKILL)
            if time.monotonic() > until:
                raise ProcessTrouble(f"{self.name} did not come up in {START:g} s: {self._last()}")
            await asyncio.sleep(0.3)

    async def kill(self) -> None:
        """SIGKILL."""
        await self._unwatched()
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and wait; SIGKILL and a trouble noted where that takes too long."""
        await self._unwatched()
        try:
            async with asyncio.timeout(STOP):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            self.troubles.append(f"{self.name} did not stop within {STOP:g} s of SIGTERM")
            await self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    # --- inside --------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self._from = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    async def _comes_up(self, until: float) -> bool:
        while time.monotonic() < until:
            if self._process is None or self._process.returncode is not None:
                return False
            if await self._ready():
                return True
            await asyncio.sleep(_POLL)
        return False

    async def _says_ready(self) -> bool:
        with self.log.open("rb") as log:
            log.seek(self._from)
            return any(line.startswith(b"ready") for line in log)

    async def _watch(self) -> None:
        """Notice an end that nobody asked for, and start again."""
        if self._process is None:
            return
        code = await self._process.wait()
        if not self._asked(self._process.pid):
            self.troubles.append(f"{self.name} ended by itself with {code}: {self._last()}")
        async with self.lock:
            await self.start()

    async def _unwatched(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if self._process is not None:
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _last(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1][-400:] if lines else "it said nothing"


def _environment() -> dict[str, str]:
    """Ours, without settings for another mesh; imports find the checkout, after what we run on."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TENANTRY_")}
    root = str(Path(__file__).resolve().parent.parent)
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (kept.get("PYTHONPATH"), root)))
    return kept | {"PYTHONUNBUFFERED": "1"}
