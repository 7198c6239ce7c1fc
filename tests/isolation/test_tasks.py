"""What a handler leaves in its task's context does not reach the next message."""

from __future__ import annotations

from contextvars import ContextVar

import pytest

from tenantry import Context, Service
from tests.mesh import Mesh, Program, eventually
from tests.services import Note, Texts

_left: ContextVar[str] = ContextVar("left", default="")


def leaving() -> tuple[Service, list[str]]:
    """A service whose handlers leave a mark, and what marks they have found."""
    service = Service("leaving", version="1.0.0")
    found: list[str] = []

    @service.command("mark", public=True)
    async def mark(_ctx: Context, note: Note) -> None:
        """Note the mark that is there, then leave one."""
        found.append(_left.get())
        _left.set(note.text)

    @service.request("ask", public=True)
    async def ask(_ctx: Context, note: Note) -> Note:
        """The same, answered."""
        before = _left.get()
        _left.set(note.text)
        return Note(before)

    @service.request("texts", public=True)
    async def texts(_ctx: Context) -> Texts:
        """What marks were found."""
        return Texts(tuple(found))

    return service, found


@pytest.fixture(scope="module")
def found(mesh: Mesh) -> list[str]:
    service, found = leaving()
    mesh.start(mesh.worker(service))
    return found


async def test_a_command_finds_nothing_of_the_one_before(
    mesh: Mesh, found: list[str], acme: Program
) -> None:
    await mesh.ready(acme, "leaving.texts")
    for number in range(3):
        await acme.client.publish("leaving.mark", {"text": f"mark {number}"})

    async def all_handled() -> bool:
        return len(found) == 3

    await eventually(all_handled)
    assert found == ["", "", ""]


async def test_a_request_finds_nothing_of_the_one_before(
    mesh: Mesh, found: list[str], acme: Program
) -> None:
    await mesh.ready(acme, "leaving.texts")
    answers = [(await acme.ask("leaving.ask", {"text": "mark"})).json["text"] for _ in range(3)]
    assert answers == ["", "", ""]
