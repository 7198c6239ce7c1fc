"""Versions of a service: side by side where they agree, refused where they contradict."""

from __future__ import annotations

import asyncio

import pytest

from tenantry import Context, Service
from tenantry.errors import DeclarationError
from tests import services
from tests.mesh import Mesh, Program, eventually
from tests.services import Note


def declared(name: str, kind: str, version: str = "1.0.0", body: type = Note) -> Service:
    """A service with one action `act`, of this kind, and for an event one that may emit it."""
    service = Service(name, version=version)
    if kind == "event":
        service.event("act", body)
        service.request("other")(_nothing)
        return service

    async def act(_ctx: Context, _body: object) -> None:
        """Do nothing."""

    act.__annotations__["_body"] = body
    (service.request if kind == "request" else service.command)("act", public=True)(act)
    return service


async def _nothing(_ctx: Context) -> None:
    """Do nothing."""


async def test_two_versions_run_side_by_side(mesh: Mesh, acme: Program) -> None:
    running = [
        mesh.start(mesh.worker(services.counting("twins", version)))
        for version in ("1.0.0", "1.1.0")
    ]
    await mesh.ready(acme, "twins.who")
    seen: set[str] = set()

    async def both() -> bool:
        seen.add((await acme.ask("twins.who")).json["text"])
        return seen == {"1.0.0", "1.1.0"}

    await eventually(both, every=0)
    for one in running:
        await one.stop()


async def test_what_only_the_newer_version_has_is_there(mesh: Mesh, acme: Program) -> None:
    old = mesh.start(mesh.worker(services.counting("grown")))
    newer = services.counting("grown", "1.1.0")

    @newer.request("more", public=True)
    async def more(_ctx: Context) -> Note:
        return Note("more")

    new = mesh.start(mesh.worker(newer))
    await mesh.ready(acme, "grown.more")
    assert (await acme.ask("grown.more")).json["text"] == "more"
    await mesh.ready(acme, "grown.who")
    await new.stop()
    await eventually(lambda: _is(acme, "grown.more", "unknown_action"))
    assert (await acme.ask("grown.who")).json["text"] == "1.0.0"
    await old.stop()


async def test_the_same_version_cannot_run_with_another_schema(mesh: Mesh, acme: Program) -> None:
    running = mesh.start(mesh.worker(declared("fixed", "request")))
    with pytest.raises(DeclarationError, match="other actions or schemas"):
        mesh.start(mesh.worker(declared("fixed", "request", body=services.Noted)))
    await mesh.ready(acme, "fixed.act")
    assert (await acme.ask("fixed.act", {"text": "x"})).code == ""
    await running.stop()


async def test_the_same_version_runs_twice_with_the_same_schema(mesh: Mesh) -> None:
    for running in [mesh.start(mesh.worker(declared("same", "request"))) for _ in range(2)]:
        await running.stop()


async def test_a_version_may_have_another_schema_once_it_has_stopped(
    mesh: Mesh, acme: Program
) -> None:
    await mesh.start(mesh.worker(declared("mended", "request"))).stop()
    running = mesh.start(mesh.worker(declared("mended", "request", body=services.Texts)))
    await mesh.ready(acme, "mended.act")
    assert (await acme.ask("mended.act", {"texts": ["x"]})).code == ""
    await running.stop()


async def test_another_version_may_have_another_schema(mesh: Mesh) -> None:
    old = mesh.start(mesh.worker(declared("moving", "request")))
    new = mesh.start(mesh.worker(declared("moving", "request", "2.0.0", services.Noted)))
    await new.stop()
    await old.stop()


@pytest.mark.parametrize(("old", "new"), [("request", "command"), ("command", "event")])
async def test_versions_that_run_cannot_differ_in_the_kind_of_an_action(
    mesh: Mesh, old: str, new: str
) -> None:
    name = f"torn_{old}_{new}"
    running = mesh.start(mesh.worker(declared(name, old)))
    with pytest.raises(DeclarationError, match=f"as an? {new}, but 1.0.0, which runs, as a {old}"):
        mesh.start(mesh.worker(declared(name, new, "2.0.0")))
    await running.stop()
    await mesh.start(mesh.worker(declared(name, new, "2.0.0"))).stop()


async def test_a_worker_that_cannot_begin_leaves_nothing_running(mesh: Mesh) -> None:
    running = mesh.start(mesh.worker(declared("spare", "command")))
    before = await _tasks_at_rest(mesh)
    with pytest.raises(DeclarationError):
        mesh.start(mesh.worker(declared("spare", "request", "2.0.0")))
    await eventually(lambda: _no_more_than(mesh, before))
    await running.stop()


async def _is(program: Program, action: str, code: str) -> bool:
    return (await program.ask(action)).code == code


async def _kept(program: Program, service: str, texts: list[str]) -> bool:
    return await program.texts(service) == texts


async def _tasks_at_rest(mesh: Mesh) -> int:
    """How many tasks there are once no more are begun."""
    counts = [await mesh.tasks()]
    while len(counts) < 5 or len(set(counts[-5:])) > 1:
        await asyncio.sleep(0.2)
        counts.append(await mesh.tasks())
    return counts[-1]


async def _no_more_than(mesh: Mesh, count: int) -> bool:
    return await mesh.tasks() <= count
