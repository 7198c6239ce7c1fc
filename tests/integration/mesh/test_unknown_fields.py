"""Fields that an action does not declare: refused from programs, unless it is lenient."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenantry import Context, Service
from tenantry.bus import Bus
from tenantry.letters import Letter, Letters, Selection
from tests.mesh import Mesh, Program, eventually
from tests.services import Note

MISTYPED = {"text": "x", "cuont": 2}


class Exact:
    """One service with public actions, strict and lenient, and a private one."""

    def __init__(self) -> None:
        self.service = Service("exact")
        self.service.request("strict", public=True)(self.echo)
        self.service.request("lenient", public=True, lenient=True)(self.echo)
        self.service.request("bodiless", public=True)(self.bodiless)
        self.service.request("private")(self.echo)
        self.service.request("relay", public=True)(self.relay)
        self.service.command("store", public=True)(self.store)
        self.service.command("store_lenient", public=True, lenient=True)(self.store)
        self.stored: list[str] = []

    async def echo(self, _ctx: Context, note: Note) -> Note:
        return note

    async def bodiless(self, _ctx: Context) -> None: ...

    async def relay(self, ctx: Context) -> Note:
        return await ctx.request("exact.private", MISTYPED, type=Note)

    async def store(self, ctx: Context, note: Note) -> None:
        self.stored.append(f"{ctx.action} of {ctx.tenant}")


@pytest.fixture(scope="module")
def exact(mesh: Mesh) -> Iterator[Exact]:
    exact = Exact()
    running = mesh.start(mesh.worker(exact.service))
    yield exact
    mesh.end(running)


async def test_a_request_with_an_unknown_field_is_refused(exact: Exact, acme: Program) -> None:
    answer = await acme.ask("exact.strict", MISTYPED)
    assert (answer.code, answer.json["status"], answer.json["path"]) == ("bad_message", 400, "$")
    assert answer.json["detail"] == "Object contains unknown field `cuont`"
    assert answer.json["hint"] == "it may have text, count"


@pytest.mark.parametrize("action", ["lenient", "bodiless", "relay"])
async def test_where_nobody_is_to_be_strict_it_passes(
    exact: Exact, acme: Program, action: str
) -> None:
    assert (await acme.ask(f"exact.{action}", MISTYPED)).code == ""


async def test_a_command_with_an_unknown_field_is_a_dead_letter(
    control: Bus, exact: Exact, acme: Program
) -> None:
    await acme.client.publish("exact.store", MISTYPED)
    await acme.client.publish("exact.store_lenient", MISTYPED)
    found: list[Letter] = []

    async def ended() -> bool:
        found[:] = [each async for each in Letters(control).select(Selection(tenant=acme.id))]
        return len(found) == 1 and f"store_lenient of {acme.id}" in exact.stored

    await eventually(ended)
    assert (found[0].about.reason, found[0].about.action) == ("bad_message", "exact.store")
    assert f"store of {acme.id}" not in exact.stored
