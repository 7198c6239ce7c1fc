"""A worker that is told to stop, alone and while another takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tenantry import Context, Service, errors
from tests import services
from tests.mesh import Mesh, Program, Running, eventually
from tests.services import Memory, Note


class Waiter:
    """A service whose handlers wait for a gate."""

    def __init__(self, name: str) -> None:
        self.service = Service(name)
        self.began, self.gate = asyncio.Event(), asyncio.Event()
        self.service.request("wait", public=True)(self.wait)
        self.service.request("there", public=True)(self.there)

    async def wait(self, _ctx: Context) -> Note:
        """Wait for the gate."""
        self.began.set()
        await self.gate.wait()
        return Note("done")

    async def there(self, _ctx: Context) -> Note:
        """Answer at once."""
        return Note("there")


async def test_a_request_that_runs_is_finished(mesh: Mesh, acme: Program) -> None:
    waiter = Waiter("finishing")
    running = mesh.start(mesh.worker(waiter.service))
    await mesh.ready(acme, "finishing.there")
    asked = asyncio.create_task(acme.ask("finishing.wait"))
    await mesh.aside(waiter.began.wait())
    stopping = asyncio.create_task(running.stop())
    await eventually(lambda: _is(acme, "finishing.there", "unavailable"))
    await mesh.set(waiter.gate)
    assert (await asked).json["text"] == "done"
    await stopping


async def test_a_command_that_runs_is_finished_and_not_delivered_again(
    mesh: Mesh, acme: Program
) -> None:
    memory = Memory("concluding")
    memory.gate.clear()
    running = mesh.start(mesh.worker(memory.service))
    for text in ("0", "1", "2"):
        await acme.client.publish("concluding.keep", {"text": text})
    await mesh.ready(acme, "concluding.texts")
    stopping = asyncio.create_task(running.stop())
    await eventually(lambda: _is(acme, "concluding.texts", "unavailable"))
    await mesh.set(memory.gate)
    await stopping
    successor = Memory("concluding")
    running = mesh.start(mesh.worker(successor.service))
    await eventually(lambda: _kept(acme, "concluding", ["0", "1", "2"]))
    handled = [text for _, text in memory.handled + successor.handled]
    assert handled == ["0", "1", "2"]
    await running.stop()


async def test_a_request_that_never_ends_is_cut_off(mesh: Mesh, acme: Program) -> None:
    waiter = Waiter("endless")
    running = mesh.start(mesh.worker(waiter.service, drain=0.2))
    await mesh.ready(acme, "endless.there")
    asked = asyncio.create_task(acme.ask("endless.wait"))
    await mesh.aside(waiter.began.wait())
    await running.stop()
    assert (await asked).code == "unavailable"


async def test_a_command_that_never_ends_is_given_back(mesh: Mesh, acme: Program) -> None:
    memory = Memory("stuck")
    memory.gate.clear()
    running = mesh.start(mesh.worker(memory.service, drain=0.2))
    await acme.client.publish("stuck.keep", {"text": "x"})
    await running.stop()
    successor = Memory("stuck")
    running = mesh.start(mesh.worker(successor.service))
    await eventually(lambda: _kept(acme, "stuck", ["x"]))
    await running.stop()


async def test_no_request_fails_while_workers_are_replaced(mesh: Mesh, acme: Program) -> None:
    running = mesh.start(mesh.worker(services.counting("rolling")))
    await mesh.ready(acme, "rolling.who")

    async def ask() -> None:
        await acme.client.request("rolling.who")

    async with _load(ask) as count:
        for _ in range(4):
            running = await _replace(mesh, running, services.counting("rolling"))
    assert count() > 50
    await running.stop()


async def test_no_command_is_lost_or_overtaken_while_workers_are_replaced(mesh: Mesh) -> None:
    memories = [Memory("relay_race")]
    running = mesh.start(mesh.worker(memories[0].service))
    async with mesh.neighbours() as (acme, globex):
        sent: list[str] = []

        async def send() -> None:
            number = str(len(sent))
            sent.append(number)
            for program in (acme, globex):
                await program.client.publish("relay_race.keep", {"text": number})

        async with _load(send, tasks=1) as count:
            for _ in range(4):
                memories.append(Memory("relay_race"))
                running = await _replace(mesh, running, memories[-1].service)
        assert count() > 50
        for program in (acme, globex):
            await eventually(lambda p=program: _kept(p, "relay_race", sent))
        for program in (acme, globex):
            handled = [
                text for memory in memories for who, text in memory.handled if who == program.id
            ]
            assert handled == sent
    await running.stop()


async def test_a_new_version_replaces_the_old_without_a_failure(mesh: Mesh, acme: Program) -> None:
    running = mesh.start(mesh.worker(services.counting("upgrading", "1.0.0")))
    await mesh.ready(acme, "upgrading.who")
    seen: set[str] = set()

    async def ask() -> None:
        seen.add((await acme.client.request("upgrading.who"))["text"])

    async with _load(ask):
        running = await _replace(mesh, running, services.counting("upgrading", "2.0.0"))
    assert seen == {"1.0.0", "2.0.0"}
    await running.stop()


class _load:  # noqa: N801
    """Do something over and over; raises what it raises."""

    def __init__(self, work: Callable[[], Awaitable[None]], *, tasks: int = 8) -> None:
        self._work = work
        self._tasks = tasks
        self._count = 0
        self._over = False

    async def __aenter__(self) -> Callable[[], int]:
        self._group = [asyncio.create_task(self._run()) for _ in range(self._tasks)]
        return lambda: self._count

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._group)

    async def _run(self) -> None:
        while not self._over:
            await self._work()
            self._count += 1


async def _replace(mesh: Mesh, old: Running, service: Service) -> Running:
    new = await asyncio.to_thread(mesh.start, mesh.worker(service))
    await old.stop()
    return new


async def _is(program: Program, action: str, code: str) -> bool:
    return (await program.ask(action, b"")).code == code


async def _kept(program: Program, service: str, texts: list[str]) -> bool:
    try:
        return await program.texts(service) == texts
    except errors.Unavailable:
        return False
