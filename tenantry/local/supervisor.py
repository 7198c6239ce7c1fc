"""The supervisor: starts a mesh's processes in order, keeps them alive, stops them in reverse."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

from tenantry import tasks
from tenantry.local import processes
from tenantry.local.child import Child, Spec
from tenantry.local.logfile import LogFile
from tenantry.local.state import Running, StateFolder

Echo = Callable[[str, str], None]
Care = Callable[[Child], Coroutine[Any, Any, None]]
"""Looks after a child until it is cancelled."""


class Supervisor:
    """All processes of one state folder, whose lock the caller holds.

    `stages` start one after another, the children of one stage together. `say` gets what a person
    should know, `echo` each line (name, line) that a child writes, `care` the first child of all,
    which is nats-server, once every child is ready.
    """

    def __init__(
        self,
        state: StateFolder,
        url: str,
        stages: Sequence[Sequence[Spec]],
        *,
        redis: str = "",
        say: Callable[[str], None],
        echo: Echo | None = None,
        care: Care | None = None,
    ) -> None:
        self.url = url
        self._redis = redis
        self._folder = state
        self._say = say
        self._care = care
        self._state: Literal["starting", "ready", "stopping"] = "starting"
        self._started = round(time.time(), 3)
        self._birth = processes.birth(os.getpid()) or ""
        self._stages = [
            [Child(spec, _log(state, spec, echo), changed=self._changed, say=say) for spec in stage]
            for stage in stages
        ]

    async def run(self, stop: asyncio.Event, *, ready: Callable[[], None]) -> None:
        """Run all until `stop` is set; `ready` is called when every child has been ready.

        Raises :class:`SetupError` when a child ends at its first start.
        """
        self._changed()
        caring: asyncio.Task[None] | None = None
        try:
            if await self._start(stop):
                self._become("ready")
                ready()
                if self._care is not None:
                    caring = asyncio.create_task(self._care(self._stages[0][0]))
            await stop.wait()
        finally:
            await tasks.end(caring)
            self._become("stopping")
            for stage in reversed(self._stages):
                await asyncio.gather(*(child.stop() for child in stage))
            self._folder.clear_running()

    def kill(self) -> None:
        """SIGKILL to all that runs: `run` then returns at once."""
        for stage in self._stages:
            for child in stage:
                child.kill()

    async def _start(self, stop: asyncio.Event) -> bool:
        """Start stage after stage; False when told to stop meanwhile."""
        stopped = asyncio.create_task(stop.wait())
        try:
            for stage in self._stages:
                starting = asyncio.create_task(_all_ready(stage))
                await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    return False
                starting.result()
        finally:
            stopped.cancel()
        return True

    def _become(self, state: Literal["ready", "stopping"]) -> None:
        self._state = state
        self._changed()

    def _changed(self) -> None:
        try:
            self._folder.write_running(
                Running(
                    supervisor=os.getpid(),
                    birth=self._birth,
                    url=self.url,
                    redis=self._redis,
                    state=self._state,
                    started=self._started,
                    children=tuple(child.status for stage in self._stages for child in stage),
                )
            )
        except OSError as error:  # a full disk is no reason to stop what runs
            self._say(f"{self._folder.path} can't be written: {error.strerror}")


async def _all_ready(stage: Sequence[Child]) -> None:
    await asyncio.gather(*(child.start() for child in stage))


def _log(state: StateFolder, spec: Spec, echo: Echo | None) -> LogFile:
    path = state.logs / f"{spec.name}.log"
    if echo is None:
        return LogFile(path)
    return LogFile(path, echo=lambda line: echo(spec.name, line))
