"""Another version of a service takes over while commands wait in the journal for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tenantry import Context, Retry, Service
from tenantry.bus import Bucket
from tenantry.letters import Letters, Selection
from tenantry.messages import Checkpoint
from tenantry.subjects import partition
from tests.mesh import Mesh, Program, eventually
from tests.services import Note, remember, texts

SLOW = Retry(first=2.0, jitter=0.0)


class Edition:
    """One version of a service; its commands wait at a gate."""

    def __init__(self, name: str, version: str, *actions: str, **options: Any) -> None:
        service = self.service = Service(name, version=version, retry=SLOW)
        self.gate = asyncio.Event()
        self.begun: list[str] = []
        self.wrong = ""
        service.request("texts", public=True)(texts)
        for action in actions:
            service.command(action, public=True, **options)(self.write)

    async def write(self, ctx: Context, note: Note) -> None:
        """Remember a text."""
        self.begun.append(note.text)
        await self.gate.wait()
        if note.text == self.wrong:
            raise RuntimeError(note.text)
        await remember(ctx, note)


async def send(program: Program, service: str, *commands: tuple[str, str]) -> None:
    for action, text in commands:
        await program.client.publish(f"{service}.{action}", {"text": text})


async def has(program: Program, service: str, *wanted: str) -> None:
    async def check() -> bool:
        return await program.texts(service) == list(wanted)

    await eventually(check)


async def begins(edition: Edition, text: str) -> None:
    async def check() -> bool:
        return text in edition.begun

    await eventually(check)


async def reasons(mesh: Mesh, service: str) -> list[str]:
    async with await mesh.insider("control") as control:
        letters = Letters(control).select(Selection(service=service))
        return [each.about.reason async for each in letters]


async def test_what_waits_for_a_command_that_was_dropped_becomes_a_dead_letter(
    mesh: Mesh, acme: Program
) -> None:
    old = Edition("dropping", "1.0.0", "write", "doodle")
    new = Edition("dropping", "1.1.0", "write")
    new.gate.set()
    first = mesh.start(mesh.worker(old.service))
    await mesh.ready(acme, "dropping.texts")
    await send(acme, "dropping", ("write", "a"), ("doodle", "b"), ("doodle", "c"), ("write", "d"))
    await begins(old, "a")
    second = mesh.start(mesh.worker(new.service))
    await mesh.set(old.gate)
    await first.stop()
    await has(acme, "dropping", "a", "d")
    assert await reasons(mesh, "dropping") == ["unknown_action", "unknown_action"]
    await second.stop()


async def test_a_handler_whose_options_changed_takes_over(mesh: Mesh, acme: Program) -> None:
    old = Edition("tuned", "1.0.0", "write", timeout=20.0)
    new = Edition("tuned", "1.1.0", "write", timeout=2.0)
    new.gate.set()
    first = mesh.start(mesh.worker(old.service))
    await mesh.ready(acme, "tuned.texts")
    await send(acme, "tuned", ("write", "a"), ("write", "b"))
    await begins(old, "a")
    second = mesh.start(mesh.worker(new.service))
    await mesh.set(old.gate)
    await has(acme, "tuned", "a", "b")
    assert new.begun == ["b"]
    await first.stop()
    await second.stop()


async def test_what_runs_for_too_long_does_not_keep_a_worker_that_was_replaced(
    mesh: Mesh, acme: Program
) -> None:
    old = Edition("lasting", "1.0.0", "write", timeout=300.0)
    new = Edition("lasting", "1.1.0", "write")
    new.gate.set()
    first = mesh.start(mesh.worker(old.service, drain=0.1))
    await mesh.ready(acme, "lasting.texts")
    await send(acme, "lasting", ("write", "a"))
    await begins(old, "a")
    second = mesh.start(mesh.worker(new.service))
    await first.stop()
    await has(acme, "lasting", "a")
    assert new.begun == ["a"]
    await second.stop()


@pytest.mark.parametrize("before", [True, False], ids=["ordered", "unordered"])
async def test_what_failed_before_is_handled_by_a_version_that_orders_it_otherwise(
    mesh: Mesh, acme: Program, before: bool
) -> None:
    name = f"ordering_{before}".lower()
    old = Edition(name, "1.0.0", "write", ordered=before)
    new = Edition(name, "1.1.0", "write", ordered=not before)
    old.wrong = "a"
    old.gate.set()
    new.gate.set()
    first = mesh.start(mesh.worker(old.service))
    await mesh.ready(acme, f"{name}.texts")
    await send(acme, name, ("write", "a"), ("write", "b"), ("write", "c"))
    await begins(old, "a")
    second = mesh.start(mesh.worker(new.service))
    await first.stop()

    async def all_there() -> bool:
        return sorted(await acme.texts(name)) == ["a", "b", "c"]

    await eventually(all_there)
    await second.stop()


async def test_after_a_rollback_what_only_the_newer_version_knows_waits_for_it(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    old = Edition("rolled", "1.0.0", "write")
    new = Edition("rolled", "1.1.0", "write", "paint")
    again = Edition("rolled", "1.1.0", "write", "paint")
    old.gate.set()
    again.gate.set()
    newer = mesh.start(mesh.worker(new.service, drain=0.1))
    await mesh.ready(acme, "rolled.texts")
    await send(acme, "rolled", ("paint", "a"), ("paint", "b"), ("write", "c"))
    await begins(new, "a")
    older = mesh.start(mesh.worker(old.service))
    await newer.stop()
    await mesh.ready(globex, "rolled.texts")
    await send(globex, "rolled", ("write", "x"))
    await has(globex, "rolled", "x")
    async with await mesh.insider("control") as control:
        checkpoints = Bucket(control, "checkpoints", Checkpoint)

        async def waits() -> bool:
            found = await checkpoints.get(f"rolled.{partition(acme.id)}")
            row = found.value.open.get(acme.id) if found is not None else None
            return row is not None and row.code == "unknown_action"

        await eventually(waits)
    assert await acme.texts("rolled") == []
    newest = mesh.start(mesh.worker(again.service))
    await has(acme, "rolled", "a", "b", "c")
    assert await reasons(mesh, "rolled") == []
    await older.stop()
    await newest.stop()
