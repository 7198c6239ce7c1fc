"""Tenants at work while something happens to the mesh: no request fails, no command is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.mesh import Mesh, Program, eventually
from tests.services import followers, notes

_PAUSE = 0.01


class Load:
    """What a few tenants ask and send, all the time."""

    def __init__(self, programs: list[Program]) -> None:
        self.programs = programs
        self.answered = 0
        self.failed: list[str] = []
        self.sent: dict[str, list[str]] = {program.id: [] for program in programs}
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False

    def start(self) -> None:
        for program in self.programs:
            self._tasks.append(asyncio.create_task(self._ask(program)))
            self._tasks.append(asyncio.create_task(self._send(program)))

    async def goes_on(self, count: int = 200) -> None:
        """Return when so many more were answered."""
        enough = self.answered + count

        async def more() -> bool:
            return self.answered >= enough

        await eventually(more)

    async def stop(self) -> None:
        """End, and hold that nothing has failed and all that was sent was handled, in order."""
        await self.goes_on()
        # Not by cancelling: nats-py's requests may swallow that (asyncio.wait_for before 3.12).
        self._over = True
        await asyncio.gather(*self._tasks)
        assert self.failed == []
        for program in self.programs:
            sent = self.sent[program.id]

            async def handled(program: Program = program, sent: list[str] = sent) -> bool:
                return await program.texts() == sent

            await eventually(handled)

    async def _ask(self, program: Program) -> None:
        while not self._over:
            try:
                answer = await program.ask("notes.echo", {"text": "x"}, timeout=5.0)
            except Exception as error:  # noqa: BLE001  (told at the end)
                self.failed.append(f"{program.id}: {error!r}")
            else:
                if answer.code:
                    self.failed.append(f"{program.id}: {answer.json}")
                self.answered += 1
            await asyncio.sleep(_PAUSE)

    async def _send(self, program: Program) -> None:
        for number in itertools.count():
            if self._over:
                return
            text = str(number)
            try:
                answer = await program.ask("notes.remember", {"text": text}, timeout=5.0)
            except Exception as error:  # noqa: BLE001  (told at the end)
                self.failed.append(f"{program.id}: command {error!r}")
            else:
                if "seq" in answer.json:
                    self.sent[program.id].append(text)
                else:
                    self.failed.append(f"{program.id}: command {answer.json}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def loaded(mesh: Mesh, *, tenants: int = 3) -> AsyncIterator[Load]:
    """A mesh with two workers of each service, and tenants at work."""
    for service in (notes, followers):
        for _ in range(2):
            mesh.start(mesh.worker(service))
    async with AsyncExitStack() as stack:
        programs = [
            await stack.enter_async_context(mesh.program(plan="business")) for _ in range(tenants)
        ]
        for program in programs:
            await mesh.ready(program, "notes.echo")
        load = Load(programs)
        load.start()
        await load.goes_on(20)
        yield load
        await load.stop()
