"""What an asker is told of a failure: a code, never what an exception or the mesh said."""

from __future__ import annotations

import pytest

from tenantry import Context, Service
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program
from tests.services import Note

HIDDEN = "secret-inside"


@cannot(47, Layer.RUNTIME)
@pytest.mark.parametrize("how", ["raise", "chained", "exit"])
async def test_what_an_exception_says_is_not_told(how: str, acme: Program) -> None:
    answer = await acme.ask("notes.bad", {"text": how})
    assert answer.code == "handler_failed"
    assert HIDDEN not in f"{answer.data!r} {answer.headers}"


@cannot(47, Layer.RUNTIME)
async def test_what_another_service_told_the_handler_is_not_told(mesh: Mesh, acme: Program) -> None:
    service = Service("teller")

    @service.request("ask", public=True)
    async def ask(ctx: Context) -> Note:
        await ctx.state.create(HIDDEN, 1)
        await ctx.state.create(HIDDEN, 2)
        return Note("never")

    running = mesh.start(mesh.worker(service))
    answer = await acme.ask("teller.ask")
    await running.stop()
    assert answer.code == "handler_failed"
    assert HIDDEN not in f"{answer.data!r} {answer.headers}"


@can(47)
async def test_what_a_handler_says_itself_is_told(acme: Program) -> None:
    answer = await acme.ask("notes.bad", {"text": "reject"})
    assert "as asked" in answer.data.decode()
