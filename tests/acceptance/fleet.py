"""A deployment as its operators run it: one server, and a process for each worker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tenantry import Client
from tenantry.control import Control
from tests.servers import NatsBackend

PATIENCE = 60.0


class Process:
    """One `tenantry run`."""

    def __init__(self, target: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.target = target
        self.pid = process.pid
        self.log = log
        self._process = process

    async def ready(self) -> None:
        """Return when it says that it serves."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        assert line.startswith(b"ready"), f"{self.target}: {self.log.read_text()}"

    async def stop(self) -> None:
        """SIGTERM, and its orderly end."""
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            code = await self._process.wait()
        assert code == 0, f"{self.target}: {self.log.read_text()}"

    async def kill(self) -> None:
        """End it at once, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Fleet:
    """Starts and replaces workers; their modules lie in `folder`."""

    def __init__(self, backend: NatsBackend, folder: Path) -> None:
        self.url = backend.url
        self.home = backend.home
        self.folder = folder
        self.running: list[Process] = []
        self._count = 0

    def write(self, name: str, text: str) -> None:
        """A module that workers can be started from."""
        (self.folder / f"{name}.py").write_text(text)

    async def start(self, target: str) -> Process:
        """One more worker; returns when it is ready."""
        self._count += 1
        log = self.folder / f"{self._count}.log"
        command = ["-m", "tenantry", "run", target, "--home", str(self.home), "--url", self.url]
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                cwd=self.folder,
                env={key: value for key, value in os.environ.items() if "TENANTRY" not in key},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=sink,
                start_new_session=True,
            )
        started = Process(target, process, log)
        self.running.append(started)
        await started.ready()
        return started

    async def customer(self, name: str) -> Client:
        """A new tenant's program; the router may hear of the tenant a moment later."""
        creds = self.home / "creds" / "control.creds"
        async with await Control.connect(self.url, creds=creds) as control:
            _, text = await control.create(name, plan="business")
        path = self.folder / f"{name}.creds"
        path.write_text(text)
        return await Client.connect(self.url, creds=path)

    async def stop(self, process: Process) -> None:
        """End one in order."""
        await process.stop()
        self.running.remove(process)

    async def replace(self, old: Process, target: str | None = None) -> Process:
        """As a rolling deployment does it: the new one serves before the old one is told to end."""
        new = await self.start(target or old.target)
        await self.stop(old)
        return new


@asynccontextmanager
async def fleet(backend: NatsBackend, folder: Path) -> AsyncIterator[Fleet]:
    """A deployment with its control plane and nothing else yet."""
    it = Fleet(backend, folder)
    try:
        await it.start("tenants")
        yield it
    finally:
        for process in reversed(it.running):
            await process.kill()
