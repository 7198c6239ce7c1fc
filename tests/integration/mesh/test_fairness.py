"""Tenants that share a worker: one that floods, fails or has a backlog harms itself alone."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tenantry import Context, Service
from tenantry.bus import Bus
from tests.mesh import Answer, Mesh, Program, eventually, journal
from tests.services import Note

_numbers = itertools.count(1)


class Gated:
    """A service whose calls take until they are let through, one for each `open`."""

    def __init__(self, concurrency: int, name: str = "gated") -> None:
        self.gate = asyncio.Semaphore(0)
        self.began: list[str] = []
        self.ended: list[str] = []
        self.fails: set[str] = set()
        self.service = Service(f"{name}{next(_numbers)}", version="1.0.0", concurrency=concurrency)
        self.ask = f"{self.service.name}.ask"
        self.do = f"{self.service.name}.do"

        @self.service.request("ask", public=True)
        async def ask(ctx: Context) -> Note:
            await self._pass(ctx.tenant)
            return Note(ctx.tenant)

        @self.service.command("do", public=True)
        async def do(ctx: Context) -> None:
            await self._pass(ctx.tenant)

        @self.service.request("fail", public=True)
        async def fail(ctx: Context) -> Note:
            self.began.append(ctx.tenant)
            if ctx.tenant in self.fails:
                raise RuntimeError("as told")
            return Note(ctx.tenant)

    async def _pass(self, tenant: str) -> None:
        self.began.append(tenant)
        await self.gate.acquire()
        self.ended.append(tenant)

    async def open(self, mesh: Mesh, count: int = 1) -> None:
        async def do() -> None:
            for _ in range(count):
                self.gate.release()

        await mesh.aside(do())


@asynccontextmanager
async def running(mesh: Mesh, service: Service, program: Program) -> AsyncIterator[None]:
    worker = mesh.start(mesh.worker(service, drain=0.5))
    await eventually(lambda: _knows(program, f"{service.name}.nothing"))
    yield
    await worker.stop()


async def _knows(program: Program, action: str) -> bool:
    return (await program.ask(action)).code == "unknown_action"


def flood(program: Program, action: str, count: int) -> list[asyncio.Task[Answer]]:
    return [asyncio.create_task(program.ask(action)) for _ in range(count)]


def when(check: Callable[[], bool]) -> Awaitable[None]:
    async def holds() -> bool:
        return check()

    return eventually(holds)


def done(tasks: Iterable[asyncio.Task[Answer]]) -> list[Answer]:
    return [task.result() for task in tasks if task.done()]


async def test_a_flood_is_refused_and_its_neighbour_is_not(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    gated = Gated(concurrency=2)
    async with running(mesh, gated.service, acme):
        flooded = flood(acme, gated.ask, 60)
        await when(lambda: len(done(flooded)) == 60 - 2 - 32)
        asked = flood(globex, gated.ask, 5)
        await gated.open(mesh, 200)
        answers = await asyncio.gather(*asked)
        refused = [each for each in await asyncio.gather(*flooded) if each.code]
        assert [answer.code for answer in answers] == [""] * 5
        assert [each.code for each in refused] == ["rate_limited"] * (60 - 2 - 32)
        assert refused[0].json["violated-policies"] == ["queue"]
        assert int(refused[0].headers["Retry-After"]) >= 1


async def test_a_neighbour_does_not_wait_behind_a_flood(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    gated = Gated(concurrency=2)
    async with running(mesh, gated.service, acme):
        flooded = flood(acme, gated.ask, 30)
        await when(lambda: len(gated.began) == 2)
        asked = flood(globex, gated.ask, 3)
        await globex.ask("notes.texts")  # by then they are there too
        await gated.open(mesh, 9)
        await asyncio.gather(*asked)
        assert gated.ended.count(acme.id) <= 6
        await gated.open(mesh, 100)
        await asyncio.gather(*flooded)


async def test_a_tenant_alone_has_all_slots(mesh: Mesh, acme: Program) -> None:
    gated = Gated(concurrency=16)
    async with running(mesh, gated.service, acme):
        flooded = flood(acme, gated.ask, 30)
        await when(lambda: len(gated.began) == 16)
        await gated.open(mesh, 100)
        assert {answer.code for answer in await asyncio.gather(*flooded)} == {""}


@pytest.fixture
async def bounded(mesh: Mesh) -> AsyncIterator[Program]:
    """A tenant of whom a service works on two messages at once, at most."""
    plan = await mesh.plan("bounded", rate=1000, burst=1000, concurrency=2)
    async with mesh.program(plan=plan) as program:
        yield program


async def test_over_its_concurrency_a_tenant_waits_and_another_does_not(
    mesh: Mesh, bounded: Program, acme: Program
) -> None:
    gated = Gated(concurrency=8)
    async with running(mesh, gated.service, acme):
        first = flood(bounded, gated.ask, 10)
        await when(lambda: gated.began.count(bounded.id) == 2)
        second = flood(acme, gated.ask, 6)
        await when(lambda: gated.began.count(acme.id) == 6)  # after all of the first had come
        assert gated.began.count(bounded.id) == 2
        await gated.open(mesh, 16)
        answers = await asyncio.gather(*first, *second)
        assert {answer.code for answer in answers} == {""}


async def test_without_a_concurrency_of_its_own_a_tenant_does_not_wait(
    mesh: Mesh, acme: Program
) -> None:
    gated = Gated(concurrency=8)
    async with running(mesh, gated.service, acme):
        asked = flood(acme, gated.ask, 8)
        await when(lambda: gated.began.count(acme.id) == 8)
        await gated.open(mesh, 8)
        await asyncio.gather(*asked)


async def test_over_its_concurrency_a_tenant_never_runs_more_while_it_drains(
    mesh: Mesh, bounded: Program
) -> None:
    gated = Gated(concurrency=8)
    async with running(mesh, gated.service, bounded):
        asked = flood(bounded, gated.ask, 10)
        for ended in range(0, 10, 2):
            await when(lambda ended=ended: len(gated.began) == ended + 2)
            assert len(gated.began) - len(gated.ended) == 2
            await gated.open(mesh, 2)
        await asyncio.gather(*asked)


async def test_what_waits_for_its_concurrency_is_bounded_too(
    mesh: Mesh, bounded: Program, acme: Program
) -> None:
    gated = Gated(concurrency=2)
    async with running(mesh, gated.service, acme):
        flooded = flood(bounded, gated.ask, 40)
        await when(lambda: len(done(flooded)) == 40 - 2 - 32)
        await gated.open(mesh, 100)
        codes = [each.code for each in await asyncio.gather(*flooded)]
        assert (codes.count(""), codes.count("rate_limited")) == (34, 6)


async def test_commands_and_requests_share_a_tenant_s_concurrency(
    mesh: Mesh, bounded: Program, acme: Program
) -> None:
    gated = Gated(concurrency=8)
    async with running(mesh, gated.service, acme):
        asked = flood(bounded, gated.ask, 2)
        await when(lambda: len(gated.began) == 2)
        await bounded.client.publish(gated.do, {})
        await acme.client.publish(gated.do, {})
        await when(lambda: acme.id in gated.began)
        assert gated.began.count(bounded.id) == 2
        await gated.open(mesh, 4)
        await when(lambda: gated.ended.count(bounded.id) == 3)
        await asyncio.gather(*asked)


async def test_a_backlog_of_commands_does_not_delay_another_tenant(mesh: Mesh) -> None:
    async with mesh.neighbours() as (one, two):
        gated = Gated(concurrency=8)
        async with running(mesh, gated.service, one):
            for _ in range(100):
                await one.client.publish(gated.do, {})
            await when(lambda: gated.began == [one.id])
            await two.client.publish(gated.do, {})
            await when(lambda: two.id in gated.began)
            assert gated.began.count(one.id) == 1
            await gated.open(mesh, 101)
            await when(lambda: gated.ended.count(one.id) == 100)


async def test_a_backlog_that_is_already_there_neither(mesh: Mesh, control: Bus) -> None:
    async with mesh.neighbours() as (one, two):
        gated = Gated(concurrency=8)
        async with running(mesh, gated.service, one):
            pass
        for _ in range(100):
            await one.client.publish(gated.do, {})
        await two.client.publish(gated.do, {})
        assert len(await journal(control, one.id, gated.do)) == 100
        worker = mesh.start(mesh.worker(gated.service, drain=0.5))
        await when(lambda: two.id in gated.began)
        assert gated.began.count(one.id) == 1
        await gated.open(mesh, 101)
        await when(lambda: gated.ended.count(one.id) == 100)
        assert gated.ended.count(two.id) == 1
        await worker.stop()


async def test_a_tenant_read_apart_for_its_backlog_keeps_its_order(mesh: Mesh) -> None:
    service, seen = Service(f"steps{next(_numbers)}", version="1.0.0", concurrency=8), list[int]()

    @service.command("do", public=True)
    async def do(_ctx: Context, note: Note) -> None:
        await asyncio.sleep(0.01)
        seen.append(note.count)

    async with mesh.program() as program, running(mesh, service, program):
        for number in range(300):
            await program.client.publish(f"{service.name}.do", Note("x", number))
        await when(lambda: len(seen) >= 300)
        assert seen == list(range(300))


async def test_calls_that_only_fail_open_the_breaker_for_their_tenant_alone(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    gated = Gated(concurrency=4)
    gated.fails.add(acme.id)
    fail = f"{gated.service.name}.fail"
    async with running(mesh, gated.service, acme):

        async def opened() -> bool:
            return (await acme.ask(fail)).code == "unavailable"

        await eventually(opened, every=0)
        failed = gated.began.count(acme.id)
        refused = await acme.ask(fail)
        assert failed == 20
        assert (refused.code, refused.json["status"]) == ("unavailable", 503)
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await globex.ask(fail)).code == ""


async def test_the_breaker_closes_once_a_probe_works(mesh: Mesh, acme: Program) -> None:
    gated = Gated(concurrency=4)
    gated.fails.add(acme.id)
    fail = f"{gated.service.name}.fail"
    async with running(mesh, gated.service, acme):

        async def opened() -> bool:
            return (await acme.ask(fail)).code == "unavailable"

        async def served() -> bool:
            return (await acme.ask(fail)).code == ""

        await eventually(opened, every=0)
        gated.fails.clear()
        await eventually(served)
        assert [(await acme.ask(fail)).code for _ in range(5)] == [""] * 5


async def test_calls_refused_for_what_was_sent_open_no_breaker(mesh: Mesh, acme: Program) -> None:
    codes = {(await acme.ask("notes.echo", b"[]")).code for _ in range(40)}
    assert codes == {"bad_message"}
    assert (await acme.ask("notes.echo", {"text": "x"})).code == ""


async def test_an_overloaded_service_refuses_the_lowest_weight(mesh: Mesh) -> None:
    gated = Gated(concurrency=1)
    heavy = await mesh.plan("heavy", rate=1000, burst=1000, weight=9)
    light = await mesh.plan("light", rate=1000, burst=1000, weight=1)
    async with AsyncExitStack() as stack:
        low = [await stack.enter_async_context(mesh.program(plan=light)) for _ in range(4)]
        high = await stack.enter_async_context(mesh.program(plan=heavy))
        await stack.enter_async_context(running(mesh, gated.service, high))
        first = flood(high, gated.ask, 1)
        await when(lambda: len(gated.began) == 1)
        waiting = [task for program in low for task in flood(program, gated.ask, 17)]
        await when(lambda: len(done(waiting)) == 4)  # now all queues are full
        full = {each.code for each in done(waiting)}
        asked = flood(high, gated.ask, 5)
        await when(lambda: len(done(waiting)) == 4 + 5)
        await gated.open(mesh, 200)
        answers = await asyncio.gather(*first, *asked)
        refused = [each for each in await asyncio.gather(*waiting) if each.code]
        shed = [each for each in refused if each.code == "unavailable"]
        assert full == {"rate_limited"}
        assert [answer.code for answer in answers] == [""] * 6
        assert [each.json["status"] for each in shed] == [503] * 5
        assert all(int(each.headers["Retry-After"]) >= 1 for each in shed)


async def test_a_queue_that_stands_is_shed_from_the_lowest_weight(mesh: Mesh) -> None:
    service = Service(f"slow{next(_numbers)}", version="1.0.0", concurrency=1)

    @service.request("ask", public=True)
    async def ask(ctx: Context) -> Note:
        await asyncio.sleep(0.05)
        return Note(ctx.tenant)

    action = f"{service.name}.ask"
    heavy = await mesh.plan("heavy", rate=1000, burst=1000, weight=9)
    light = await mesh.plan("light", rate=1000, burst=1000, weight=1)
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(mesh.program(plan=light)) for _ in range(2)]
        high = await stack.enter_async_context(mesh.program(plan=heavy))
        async with running(mesh, service, high):
            codes: dict[str, set[str]] = {one.id: set(), two.id: set(), high.id: set()}

            async def keep_asking(program: Program) -> None:
                while "unavailable" not in codes[one.id] | codes[two.id]:
                    codes[program.id].add((await program.ask(action)).code)

            programs = [one] * 12 + [two] * 12 + [high] * 3
            async with asyncio.timeout(60):
                await asyncio.gather(*(keep_asking(program) for program in programs))
            assert codes[high.id] == {""}


async def test_what_cannot_be_done_in_time_does_not_run(mesh: Mesh, acme: Program) -> None:
    gated = Gated(concurrency=1)
    async with running(mesh, gated.service, acme):
        blocked = flood(acme, gated.ask, 1)
        await when(lambda: len(gated.began) == 1)
        late = asyncio.create_task(acme.ask(gated.ask, headers={"Tenant-Timeout": "0.2"}))
        over = time.monotonic() + 0.5
        await when(lambda: time.monotonic() > over)
        await gated.open(mesh, 10)
        assert (await late).code == "deadline_exceeded"
        await asyncio.gather(*blocked)
        assert len(gated.began) == 1


class Dependency:
    """A service that adapts to how long something else takes; `seconds` may be changed."""

    def __init__(self, *, adaptive: bool) -> None:
        self.seconds = 0.02
        self.handled = 0
        name = f"dependent{next(_numbers)}"
        self.service = Service(name, version="1.0.0", concurrency=16, adaptive=adaptive)

        @self.service.request("ask", public=True)
        async def ask(ctx: Context) -> Note:
            await asyncio.sleep(self.seconds)
            self.handled += 1
            return Note(ctx.tenant)

    @asynccontextmanager
    async def busy(self, program: Program) -> AsyncIterator[None]:
        """More askers than there are slots."""

        over = False

        async def keep_asking() -> None:
            while not over:
                await program.ask(f"{self.service.name}.ask")

        asking = [asyncio.create_task(keep_asking()) for _ in range(24)]
        try:
            yield
        finally:
            over = True
            await asyncio.gather(*asking)

    async def slots(self, control: Bus) -> int:
        answer = await control.call(f"$SRV.STATS.{self.service.name}", b"")
        return int(json.loads(answer.data)["metadata"]["slots"])

    async def handles(self, count: int) -> None:
        """Return when it has handled so many more."""
        end = self.handled + count
        await when(lambda: self.handled >= end)


async def test_an_adaptive_service_runs_less_while_it_is_slow_and_recovers(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    dependency = Dependency(adaptive=True)

    async def has(check: Callable[[int], bool]) -> bool:
        return check(await dependency.slots(control))

    async with running(mesh, dependency.service, acme), dependency.busy(acme):
        await dependency.handles(1000)
        # A busy machine may make it slow by itself, for a moment.
        await eventually(lambda: has(lambda slots: slots == 16), within=60)
        dependency.seconds = 0.5
        await eventually(lambda: has(lambda slots: slots <= 10), within=60)
        dependency.seconds = 0.02
        await eventually(lambda: has(lambda slots: slots == 16), within=60)


async def test_one_that_is_not_adaptive_runs_as_much_as_ever(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    dependency = Dependency(adaptive=False)
    async with running(mesh, dependency.service, acme), dependency.busy(acme):
        await dependency.handles(200)
        dependency.seconds = 0.3
        await dependency.handles(100)
        assert await dependency.slots(control) == 16
