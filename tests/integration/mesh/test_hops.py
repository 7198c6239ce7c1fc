"""Messages that cause each other in a circle: they end, and who looks on sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tenantry import Context, Service
from tenantry.bus import Bus
from tenantry.letters import Letter, Letters, Selection
from tenantry.redrive import Redriver
from tests.integration.mesh.test_tallies import of
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import Note

HOPS = 6


class Circle:
    """Two services that follow each other's event, ask each other, and repeat themselves.

    Where a text says `chain`, it ends by itself before the limit.
    """

    def __init__(self) -> None:
        self.alpha = Service("alpha", max_hops=HOPS)
        self.beta = Service("beta", max_hops=HOPS)
        self.ping, self.pong = self.alpha.event("ping", Note), self.beta.event("pong", Note)
        self.alpha.request("begin", public=True)(self.begin)
        self.alpha.request("ask", public=True)(self.ask)
        self.beta.request("ask")(self.ask_back)
        self.alpha.command("again", public=True)(self.again)
        self.alpha.on(self.pong)(self.on_pong)
        self.beta.on(self.ping)(self.on_ping)
        self.repeated: Counter[str] = Counter()

    async def begin(self, ctx: Context, note: Note) -> None:
        ctx.emit(self.ping, note)

    async def on_ping(self, ctx: Context, note: Note) -> None:
        await ctx.state.put("last", note)  # so that a redo record carries the event
        if note.text != "chain" or note.count < HOPS - 1:
            ctx.emit(self.pong, Note(note.text, note.count + 1))

    async def on_pong(self, ctx: Context, note: Note) -> None:
        if note.text != "chain" or note.count < HOPS - 1:
            ctx.emit(self.ping, Note(note.text, note.count + 1))

    async def ask(self, ctx: Context, note: Note) -> Note:
        return await ctx.request("beta.ask", note, type=Note)

    async def ask_back(self, ctx: Context, note: Note) -> Note:
        return await ctx.request("alpha.ask", note, type=Note)

    async def again(self, ctx: Context, note: Note) -> None:
        self.repeated[ctx.tenant] += 1
        if self.repeated[ctx.tenant] <= 3 * HOPS:
            ctx.send("alpha.again", note, after=0.01 if note.text == "soon" else 1.0)


@pytest.fixture(scope="module")
def circle(mesh: Mesh) -> Iterator[Circle]:
    circle = Circle()
    worker = mesh.start(mesh.worker(circle.alpha, circle.beta))
    yield circle
    mesh.end(worker)


async def letters(control: Bus, tenant: str) -> list[Letter]:
    return [each async for each in Letters(control).select(Selection(tenant=tenant))]


async def died(control: Bus, tenant: str) -> Letter:
    """The tenant's one dead letter."""
    found: list[Letter] = []

    async def one() -> bool:
        found[:] = await letters(control, tenant)
        return len(found) == 1

    await eventually(one)
    return found[0]


async def test_a_circle_of_events_ends_in_a_dead_letter(
    control: Bus, circle: Circle, acme: Program
) -> None:
    await acme.ask("alpha.begin", {"text": "x"})
    letter = await died(control, acme.id)
    assert (letter.about.reason, letter.headers["Tenant-Hops"]) == ("too_deep", str(HOPS + 1))
    found = [entry.name for entry in await journal(control, acme.id)]
    assert found.count("alpha.ping") + found.count("beta.pong") == HOPS + 1


async def test_a_chain_that_ends_by_itself_is_handled(
    control: Bus, circle: Circle, acme: Program
) -> None:
    await acme.ask("alpha.begin", {"text": "chain"})

    async def ended() -> bool:
        return (await of(control, "alpha", acme.id)).handled == 1 + HOPS // 2

    await eventually(ended)
    assert await letters(control, acme.id) == []


async def test_a_circle_of_requests_is_508(circle: Circle, acme: Program) -> None:
    answer = await acme.ask("alpha.ask", {"text": "x"})
    assert (answer.code, answer.json["status"]) == ("too_deep", 508)


async def test_a_program_cannot_say_how_deep_it_is(
    control: Bus, circle: Circle, acme: Program
) -> None:
    answer = await acme.ask("alpha.begin", {"text": "chain"}, headers={"Tenant-Hops": "99"})
    assert answer.code == ""
    found = [entry for entry in await journal(control, acme.id) if entry.name == "alpha.ping"]
    assert found[0].headers["Tenant-Hops"] == "1"


async def test_what_is_sent_for_at_once_again_and_again_ends(
    control: Bus, circle: Circle, acme: Program
) -> None:
    await acme.client.publish("alpha.again", {"text": "soon"})
    assert (await died(control, acme.id)).about.reason == "too_deep"


async def test_what_is_done_now_and_again_goes_on(circle: Circle, acme: Program) -> None:
    await acme.client.publish("alpha.again", {"text": "later"})

    async def repeated() -> bool:
        return circle.repeated[acme.id] > HOPS + 1

    await eventually(repeated, within=60)


async def test_a_redrive_begins_anew(control: Bus, circle: Circle, acme: Program) -> None:
    await acme.ask("alpha.begin", {"text": "x"})
    first = await died(control, acme.id)
    told: list[Any] = []
    async with Redriver(control) as redriver:
        await redriver.redrive({acme.id: [first.number]}, told.append)

    async def again() -> bool:
        found = await letters(control, acme.id)
        return [each.about.seq > told[0].seq for each in found] == [True]

    await eventually(again)


async def test_what_services_send_is_told(control: Bus, circle: Circle, acme: Program) -> None:
    await acme.ask("alpha.begin", {"text": "x"})
    await died(control, acme.id)
    assert (await of(control, "beta", acme.id)).sent > 0
    assert (await of(control, "beta", "nobody")).sent == 0
