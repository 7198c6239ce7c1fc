"""Unordered messages: none waits for another, and those that fail are not forgotten."""

from __future__ import annotations

from tenantry import Context, Retry, Service
from tenantry.bus import Bus
from tenantry.delivery.lane import SINGLES_MAX
from tenantry.subjects import partition
from tests.integration.mesh.counting import Owners
from tests.mesh import Mesh, Program, Running, eventually
from tests.services import Note

LATER = Retry(tries=1000, first=0.2, most=0.5)


class Several:
    """A service without order, of which texts fail until they may succeed."""

    def __init__(self, name: str) -> None:
        self.service = Service(name, version="1.0.0", retry=LATER, concurrency=32)
        self.service.command("do", public=True, ordered=False)(self.do)
        self.service.request("echo", public=True)(self.echo)
        self.wrong: set[str] = set()
        self.failed: dict[str, int] = {}
        """The last attempt of each text that has failed."""
        self.done: dict[str, int] = {}
        """The attempt of each text that has succeeded."""

    async def do(self, ctx: Context, note: Note) -> None:
        """Fail as planned."""
        if note.text in self.wrong:
            self.failed[note.text] = ctx.attempt
            raise RuntimeError("as the test wants it")
        self.done[note.text] = ctx.attempt

    async def echo(self, _ctx: Context, note: Note) -> Note:
        """Answer with the same."""
        return note

    async def start(self, mesh: Mesh, program: Program) -> Running:
        running = mesh.start(mesh.worker(self.service))
        await mesh.ready(program, f"{self.service.name}.echo")
        return running

    async def send(self, program: Program, *texts: str) -> None:
        for text in texts:
            await program.client.publish(f"{self.service.name}.do", {"text": text})

    async def has_done(self, *texts: str) -> None:
        async def check() -> bool:
            return self.done.keys() >= set(texts)

        await eventually(check)

    async def has_failed(self, *texts: str) -> None:
        async def check() -> bool:
            return self.failed.keys() >= set(texts)

        await eventually(check)


async def test_one_that_fails_holds_up_no_other(mesh: Mesh, acme: Program) -> None:
    several = Several("holds_none_up")
    several.wrong.add("bad")
    running = await several.start(mesh, acme)
    await several.send(acme, "bad", "a", "b")
    await several.has_done("a", "b")
    await several.has_failed("bad")
    several.wrong.clear()
    await several.has_done("bad")
    await running.stop()


async def test_those_that_wait_for_a_retry_outlive_a_takeover(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    old, new = Several("outlives"), Several("outlives")
    owners = Owners(control, "outlives")
    bad = {f"bad{number}" for number in range(5)}
    old.wrong |= bad
    first = await old.start(mesh, acme)
    await old.send(acme, *bad, "good")
    await old.has_done("good")
    await old.has_failed(*bad)
    await first.stop()
    rows = (await owners.checkpoint(partition(acme.id))).open
    assert len(rows) == len(bad)
    assert all(row.failed >= 1 for row in rows.values())
    second = await new.start(mesh, acme)
    await new.has_done(*bad)
    assert all(new.done[text] > 1 for text in bad)
    assert "good" not in new.done
    await second.stop()
    assert (await owners.checkpoint(partition(acme.id))).open == {}


async def test_many_that_fail_make_no_checkpoint_that_grows_without_bound(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    several, owners = Several("unbounded"), Owners(control, "unbounded")
    running = await several.start(mesh, acme)
    bad = [f"bad{number}" for number in range(SINGLES_MAX + 100)]
    several.wrong |= {*bad}
    await several.send(acme, *bad)

    async def is_full() -> bool:
        return len((await owners.checkpoint(partition(acme.id))).open) > SINGLES_MAX

    await eventually(is_full)
    await several.has_failed(*bad[:SINGLES_MAX])
    assert len((await owners.checkpoint(partition(acme.id))).open) <= SINGLES_MAX + 32 + 1
    several.wrong.clear()
    await several.has_done(*bad)

    async def is_empty() -> bool:
        return not (await owners.checkpoint(partition(acme.id))).open

    await eventually(is_empty)
    await running.stop()
