"""Schedules that did not come from the library: which are sent, and which never."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tenantry import schedules
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.context.token import Minter
from tenantry.errors import JetStreamError, NotFound
from tests.integration.mesh.planner import FAR, Wish, planner
from tests.integration.mesh.planning import has_due, has_stored, nothing_left, plan, remembers
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, Running, eventually, journal

TRIES = 3
"""How often the tenants worker looks for a tenant or a key, a second apart."""


@pytest.fixture(scope="module", autouse=True)
def planning(mesh: Mesh) -> Running:
    return mesh.start(mesh.worker(planner()))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenants worker that gives up sooner on what it does not know."""
    monkeypatch.setattr("tenantry_workers.tenants.schedules._TRIES", TRIES)


@cannot(62, Layer.CONTROL)
async def test_one_of_no_tenant_is_never_sent_and_stops_no_other(
    impatient: None, mesh: Mesh, globex: Program, control: Bus, insider: Bus
) -> None:
    await lay_down(insider, "nobody", "0" * 32, mesh.minter().mint("nobody", "business", "edge"))
    await plan(globex, Wish("x", after=0))
    await eventually(lambda: remembers(globex, ["x"]))
    await eventually(lambda: nothing_left(control, "nobody"))
    assert await journal(control, "nobody") == []


async def test_one_of_a_tenant_that_is_not_known_yet_waits_for_it(
    mesh: Mesh, control: Bus, insider: Bus
) -> None:
    await lay_down(insider, "newborn", "0" * 32, mesh.minter().mint("newborn", "business", "edge"))
    await eventually(lambda: has_due(control, "newborn", 1))
    async with mesh.program("newborn") as program:
        await eventually(lambda: remembers(program, ["laid"]))


@cannot(62, Layer.CONTROL)
async def test_a_forged_one_is_never_sent(
    acme: Program, globex: Program, control: Bus, insider: Bus
) -> None:
    await plan(globex, Wish("x", after=FAR))
    (other,) = await schedules.find(control, globex.id)
    kept = await schedules.get(control, globex.id, other.id)
    await lay_down(insider, acme.id, "0" * 32, kept.headers["Tenant-Context"])
    await eventually(lambda: nothing_left(control, acme.id))
    assert await journal(control, acme.id, "notes.remember") == []


@cannot(31, Layer.CONTROL)
async def test_one_with_a_context_that_was_over_when_it_was_stored_is_never_sent(
    mesh: Mesh, acme: Program, control: Bus, insider: Bus
) -> None:
    minter = mesh.minter()
    stale = minter.mint(acme.id, "business", "edge", now=time.time() - 3600)
    await lay_down(insider, acme.id, "0" * 32, stale)
    await eventually(lambda: nothing_left(control, acme.id))
    assert await journal(control, acme.id, "notes.remember") == []


@cannot(25, Layer.CONTROL)
async def test_one_that_is_signed_by_nobody_known_is_never_sent_and_stops_no_other(
    impatient: None, acme: Program, globex: Program, control: Bus, insider: Bus
) -> None:
    stranger = Minter("stranger", bytes(32)).mint(acme.id, "business", "edge")
    await lay_down(insider, acme.id, "0" * 32, stranger)
    await plan(globex, Wish("x", after=0))
    await eventually(lambda: remembers(globex, ["x"]))
    assert not await nothing_left(control, acme.id)  # the key may only be new
    await eventually(lambda: nothing_left(control, acme.id))
    assert await journal(control, acme.id, "notes.remember") == []


@pytest.mark.parametrize("command", ["nonsense", "notes.*", "notes.remember.more"])
async def test_one_that_names_no_command_is_never_sent(
    mesh: Mesh, acme: Program, control: Bus, insider: Bus, command: str
) -> None:
    good = mesh.minter().mint(acme.id, "business", "edge")
    before = len(await journal(control, acme.id))
    await lay_down(insider, acme.id, "0" * 32, good, command=command)
    await eventually(lambda: nothing_left(control, acme.id))
    assert len(await journal(control, acme.id)) == before


async def test_one_that_does_not_say_when_it_is_due_is_sent(
    mesh: Mesh, acme: Program, insider: Bus
) -> None:
    good = mesh.minter().mint(acme.id, "business", "edge")
    await lay_down(insider, acme.id, "0" * 32, good, due="soon")
    await eventually(lambda: remembers(acme, ["laid"]))


@can(62)
async def test_one_with_a_good_context_is_sent(
    mesh: Mesh, acme: Program, control: Bus, insider: Bus
) -> None:
    good = mesh.minter().mint(acme.id, "business", "edge")
    await lay_down(insider, acme.id, "0" * 32, good)
    await eventually(lambda: remembers(acme, ["laid"]))


async def test_it_is_sent_in_the_name_of_the_same_principal(
    mesh: Mesh, acme: Program, control: Bus, insider: Bus
) -> None:
    token = mesh.minter().mint(acme.id, "business", "ada", roles=("admin",))
    await lay_down(insider, acme.id, "0" * 32, token)
    await eventually(lambda: has_stored(control, acme.id, "notes.remember", 1))
    (entry,) = await journal(control, acme.id, "notes.remember")
    claims = _claims(entry.headers["Tenant-Context"])
    assert (claims["sub"], claims["roles"], claims["plan"]) == ("ada", ["admin"], "business")
    assert claims["iat"] > _claims(token)["iat"]


async def test_one_that_comes_again_is_stored_once(
    mesh: Mesh, acme: Program, control: Bus, insider: Bus
) -> None:
    """As after a kill between the journal's answer and the clearing away."""
    token = mesh.minter().mint(acme.id, "business", "edge")
    for _ in range(2):
        await lay_down(insider, acme.id, "0" * 32, token)
        await eventually(lambda: nothing_left(control, acme.id))
    assert len(await journal(control, acme.id, "notes.remember")) == 1


# ids and timers of another tenant


@cannot(60, Layer.STORE)
async def test_a_tenant_cancels_no_schedule_of_another(
    acme: Program, globex: Program, control: Bus
) -> None:
    theirs = await plan(globex, Wish("theirs", after=FAR))
    await acme.client.request("planner.cancel", {"id": theirs})
    await eventually(lambda: nothing_left(control, acme.id))
    assert [each.id for each in await schedules.find(control, globex.id)] == [theirs]


@can(60)
async def test_a_tenant_cancels_its_own(acme: Program, control: Bus) -> None:
    mine = await plan(acme, Wish("mine", after=FAR))
    await acme.client.request("planner.cancel", {"id": mine})
    await eventually(lambda: nothing_left(control, acme.id))


@cannot(60, Layer.STORE)
async def test_an_operator_finds_no_schedule_under_another_tenant(
    acme: Program, globex: Program, control: Bus
) -> None:
    theirs = await plan(globex, Wish("theirs", after=FAR))
    for use in (schedules.get, schedules.cancel):
        with pytest.raises(NotFound):
            await use(control, acme.id, theirs)
    assert (await schedules.get(control, globex.id, theirs)).schedule.tenant == globex.id


@cannot(61, Layer.CONTROL)
async def test_a_timer_of_one_tenant_does_not_tell_of_anothers_schedule(
    acme: Program, globex: Program, control: Bus, insider: Bus
) -> None:
    theirs = await plan(globex, Wish("theirs", after=FAR))
    await own_timer(insider, acme.id, target=f"due.{globex.id}.planner.{theirs}")
    await plan(globex, Wish("later", after=0))
    await eventually(lambda: remembers(globex, ["later"]))
    assert [each.id for each in await schedules.find(control, globex.id)] == [theirs]
    assert await journal(control, globex.id, "notes.remember") != []


@cannot(61, Layer.SERVER)
async def test_a_timer_does_not_say_that_it_is_another(
    acme: Program, globex: Program, insider: Bus
) -> None:
    name = "1" * 32
    with pytest.raises(JetStreamError, match="scheduler"):
        await own_timer(
            insider,
            acme.id,
            target=f"due.{globex.id}.planner.{name}",
            scheduler=f"timer.{globex.id}.planner.{name}",
        )


@cannot(61, Layer.CONTROL, without=Layer.SERVER)
async def test_a_due_message_that_no_timer_sent_sends_nothing(
    globex: Program, control: Bus
) -> None:
    """By the role `control`, which may publish what nats-server else publishes itself."""
    theirs = await plan(globex, Wish("theirs", after=FAR))
    await js.store(control, f"due.{globex.id}.planner.{theirs}", b"")
    await plan(globex, Wish("later", after=0))
    await eventually(lambda: remembers(globex, ["later"]))
    assert [each.id for each in await schedules.find(control, globex.id)] == [theirs]


@can(61)
async def test_a_timer_tells_of_its_own_schedule(acme: Program) -> None:
    await plan(acme, Wish("mine", after=0))
    await eventually(lambda: remembers(acme, ["mine"]))


async def own_timer(bus: Bus, tenant: str, *, target: str, scheduler: str = "") -> None:
    """A timer that is over already, and tells `target`."""
    fields = {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": target}
    if scheduler:
        fields["Nats-Scheduler"] = scheduler
    await js.store(bus, f"timer.{tenant}.planner.{'0' * 32}", b"", headers=fields)


async def lay_down(bus: Bus, tenant: str, name: str, token: str, **more: str) -> None:
    """Schedule by hand, for now."""
    fields = {
        "Tenant-Context": token,
        "Tenant-Command": more.get("command", "notes.remember"),
        "Tenant-Due": more.get("due", "0"),
    }
    await js.store(bus, f"schedule.{tenant}.planner.{name}", b'{"text": "laid"}', headers=fields)
    timer = {
        "Nats-Schedule": "@at 2020-01-01T00:00:00Z",
        "Nats-Schedule-Target": f"due.{tenant}.planner.{name}",
    }
    await js.store(bus, f"timer.{tenant}.planner.{name}", b"", headers=timer)


def _claims(token: str) -> Any:
    import base64
    import json

    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
