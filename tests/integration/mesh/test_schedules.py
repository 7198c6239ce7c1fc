"""Commands that are sent later: at their time, once, for the tenant they belong to."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

import pytest

from tenantry import errors, schedules
from tenantry.bus import Bus
from tenantry_workers.tenants import TenantsWorker
from tests.integration.mesh.planner import FAR, SOON, Planned, Wish, Wishes, planner
from tests.integration.mesh.planning import (
    has_due,
    has_stored,
    nothing_left,
    plan,
    plan_all,
    remembers,
)
from tests.mesh import Mesh, Program, Running, eventually, journal
from tests.services import Memory

AWAY = 60.0


@pytest.fixture(scope="module", autouse=True)
def planning(mesh: Mesh) -> Running:
    return mesh.start(mesh.worker(planner()))


async def test_a_command_is_sent_when_its_time_has_come(acme: Program) -> None:
    await plan(acme, Wish("x", after=SOON))
    await eventually(lambda: remembers(acme, ["x"]))


async def test_it_is_not_sent_before(acme: Program, control: Bus) -> None:
    due = time.time() + SOON
    await plan(acme, Wish("x", at=due))
    await eventually(lambda: remembers(acme, ["x"]))
    (entry,) = await journal(control, acme.id, "notes.remember")
    stored = dt.datetime.fromisoformat(entry.headers["Nats-Time-Stamp"]).timestamp()
    assert stored >= round(due, 3)


async def test_one_whose_time_has_not_come_waits_while_a_later_one_is_sent(
    acme: Program, control: Bus
) -> None:
    far = await plan(acme, Wish("far", after=FAR))
    await plan(acme, Wish("soon", after=SOON))
    await eventually(lambda: remembers(acme, ["soon"]))
    assert [each.id for each in await schedules.find(control, acme.id)] == [far]


async def test_what_is_past_is_due_at_once(acme: Program) -> None:
    await plan(acme, Wish("x", at=1.0))
    await eventually(lambda: remembers(acme, ["x"]))


async def test_what_has_been_sent_leaves_nothing_behind(acme: Program, control: Bus) -> None:
    await plan(acme, Wish("x", after=0))
    await eventually(lambda: remembers(acme, ["x"]))
    await eventually(lambda: nothing_left(control, acme.id))


async def test_it_outlives_the_plans_retention_which_begins_when_it_is_sent(
    small: Program, control: Bus
) -> None:
    name = await plan(small, Wish("far", after=FAR))
    await plan(small, Wish("soon", after=0))
    assert "Nats-TTL" not in (await schedules.get(control, small.id, name)).headers
    await eventually(lambda: has_stored(control, small.id, "notes.remember", 1))
    (entry,) = await journal(control, small.id, "notes.remember")
    assert entry.headers["Nats-TTL"] == "604800s"


async def test_the_plan_is_the_one_of_the_time_when_it_is_sent(
    mesh: Mesh, small: Program, control: Bus
) -> None:
    await plan(small, Wish("x", after=2 * SOON))
    await mesh.control("set_plan", id=small.id, plan="business")
    await eventually(lambda: has_stored(control, small.id, "notes.remember", 1))
    (entry,) = await journal(control, small.id, "notes.remember")
    assert entry.headers["Nats-TTL"] == "31536000s"


async def test_what_falls_due_together_is_sent_in_the_order_of_times(acme: Program) -> None:
    now = time.time() + SOON
    wishes = [Wish(str(9 - n), at=now + (9 - n) / 1000) for n in range(10)]
    await plan_all(acme, wishes)
    await eventually(lambda: remembers(acme, [str(n) for n in range(10)]))


async def test_what_has_one_time_is_sent_in_the_order_of_the_handler(acme: Program) -> None:
    now = time.time() + SOON
    await plan_all(acme, [Wish(str(n), at=now) for n in range(10)])
    await eventually(lambda: remembers(acme, [str(n) for n in range(10)]))


async def test_a_handler_that_fails_schedules_nothing(acme: Program, control: Bus) -> None:
    assert (await acme.ask("planner.plan", Wish("x", after=0, fails=1))).code == "handler_failed"
    assert await schedules.find(control, acme.id) == []
    await plan(acme, Wish("y", after=SOON))
    await eventually(lambda: remembers(acme, ["y"]))


async def test_a_command_that_is_retried_schedules_once(acme: Program, control: Bus) -> None:
    await acme.client.publish("planner.plan_stored", Wish("x", after=FAR, fails=2))
    await eventually(lambda: _waiting(control, acme.id, 1))


async def test_a_message_that_is_handled_twice_schedules_once(acme: Program, control: Bus) -> None:
    for _ in range(2):
        await acme.ask("planner.plan", Wish("x", after=FAR), headers={"Nats-Msg-Id": "7"})
    await acme.ask("planner.plan", Wish("x", after=FAR), headers={"Nats-Msg-Id": "8"})
    assert await _waiting(control, acme.id, 2)


async def test_a_message_that_is_handled_twice_sends_once(acme: Program, control: Bus) -> None:
    for _ in range(2):
        await acme.ask("planner.plan", Wish("x", after=0), headers={"Nats-Msg-Id": "7"})
        await eventually(lambda: nothing_left(control, acme.id))
    assert len(await journal(control, acme.id, "notes.remember")) == 1


async def test_a_cancelled_one_is_not_sent_while_its_neighbour_is(
    acme: Program, control: Bus
) -> None:
    due = time.time() + 2 * SOON
    first, _ = await plan_all(acme, [Wish("first", at=due), Wish("second", at=due)])
    await acme.client.request("planner.cancel", Planned(first))
    await eventually(lambda: remembers(acme, ["second"]))
    await eventually(lambda: nothing_left(control, acme.id))
    assert await acme.texts() == ["second"]


async def test_a_handler_can_cancel_what_it_has_just_sent(acme: Program) -> None:
    wishes = Wishes((Wish("first", after=0), Wish("second", after=SOON)))
    await acme.client.request("planner.change_of_mind", wishes)
    await eventually(lambda: remembers(acme, ["second"]))


async def test_cancelling_what_is_not_there_is_no_fault(acme: Program) -> None:
    await acme.client.request("planner.cancel", Planned("0" * 32))


async def test_another_tenant_can_not_cancel_it(
    acme: Program, globex: Program, control: Bus
) -> None:
    kept = await plan(acme, Wish("x", after=FAR))
    own = await plan(globex, Wish("x", after=FAR))
    await globex.client.request("planner.cancel", Planned(kept))
    await globex.client.request("planner.cancel", Planned(own))
    await eventually(lambda: _waiting(control, globex.id, 0))
    assert [each.id for each in await schedules.find(control, acme.id)] == [kept]


async def test_another_service_can_not_cancel_it(mesh: Mesh, acme: Program, control: Bus) -> None:
    mesh.start(mesh.worker(planner("meddler")))
    await mesh.ready(acme, "meddler.plan")
    kept = await plan(acme, Wish("x", after=FAR))
    await acme.client.request("meddler.cancel", Planned(kept))
    await acme.client.request("planner.cancel", Planned("0" * 32))
    assert [each.id for each in await schedules.find(control, acme.id)] == [kept]


async def test_it_goes_to_the_tenant_it_was_scheduled_for(acme: Program, globex: Program) -> None:
    await plan(acme, Wish("acme", after=0))
    await plan(globex, Wish("globex", after=0))
    await eventually(lambda: remembers(acme, ["acme"]))
    await eventually(lambda: remembers(globex, ["globex"]))


async def test_a_suspended_tenants_commands_wait_until_it_is_resumed(
    mesh: Mesh, acme: Program, globex: Program, control: Bus
) -> None:
    await plan_all(acme, [Wish("1", after=SOON), Wish("2", after=SOON)])
    await mesh.control("suspend", id=acme.id)
    await plan(globex, Wish("x", after=2 * SOON))
    await eventually(lambda: remembers(globex, ["x"]))
    assert await journal(control, acme.id, "notes.remember") == []
    await mesh.control("resume", id=acme.id)
    await eventually(lambda: has_stored(control, acme.id, "notes.remember", 2))
    await eventually(lambda: remembers(acme, ["1", "2"]))


async def test_a_deleted_tenants_commands_are_never_sent(
    mesh: Mesh, acme: Program, globex: Program, control: Bus
) -> None:
    await plan(acme, Wish("x", after=SOON))
    await mesh.control("delete", id=acme.id)
    await plan(globex, Wish("x", after=2 * SOON))
    await eventually(lambda: nothing_left(control, acme.id))
    await eventually(lambda: remembers(globex, ["x"]))
    assert await journal(control, acme.id, "notes.remember") == []


async def test_erasing_takes_one_tenants_and_no_others(
    acme: Program, globex: Program, control: Bus
) -> None:
    for program in (acme, globex):
        await plan_all(program, [Wish("1", after=FAR), Wish("2", after=FAR)])
    assert await schedules.erase(control, acme.id) == 2
    assert await nothing_left(control, acme.id)
    assert len(await schedules.find(control, globex.id)) == 2


# Restarts


async def test_a_killed_server_still_tells_what_is_due(own_mesh: Mesh) -> None:
    own_mesh.start(own_mesh.worker(planner(to="vault.keep"), Memory("vault").service))
    async with own_mesh.program() as acme:
        await own_mesh.ready(acme, "planner.plan")
        due = time.time() + 2.0
        await plan_all(acme, [Wish(str(n), at=due + n / 1000) for n in range(20)])
        await asyncio.to_thread(own_mesh.backend.kill)
        await asyncio.sleep(max(0.0, due + 0.5 - time.time()))
        await asyncio.to_thread(own_mesh.backend.start)
        texts = [str(n) for n in range(20)]
        await eventually(lambda: _keeps(acme, texts), within=AWAY)


async def test_what_came_due_without_a_tenants_worker_is_sent_when_one_is_back(
    own_mesh: Mesh,
) -> None:
    own_mesh.start(own_mesh.worker(planner(to="vault.keep"), Memory("vault").service))
    async with own_mesh.program() as acme, await own_mesh.insider("control") as control:
        await own_mesh.ready(acme, "planner.plan")
        await own_mesh.running[0].stop()
        await plan_all(acme, [Wish("2", after=2 * SOON), Wish("1", after=SOON)])
        await eventually(lambda: has_due(control, acme.id, 2))
        own_mesh.start(TenantsWorker(own_mesh.options()))
        await eventually(lambda: remembers(acme, ["1", "2"], "vault"))


async def test_what_a_service_has_scheduled_outlives_it(mesh: Mesh, acme: Program) -> None:
    running = mesh.start(mesh.worker(planner("passing")))
    await mesh.ready(acme, "passing.plan")
    await acme.client.request("passing.plan", Wish("x", after=2 * SOON))
    await running.stop()
    await eventually(lambda: remembers(acme, ["x"]))


async def test_two_tenants_workers_send_it_once(mesh: Mesh, acme: Program, control: Bus) -> None:
    second = mesh.start(TenantsWorker(mesh.options()))
    texts = [str(n) for n in range(30)]
    now = time.time() + SOON
    await plan_all(acme, [Wish(text, at=now + int(text) / 1000) for text in texts])
    await eventually(lambda: remembers(acme, texts))
    assert len(await journal(control, acme.id, "notes.remember")) == 30
    await second.stop()


async def _keeps(program: Program, texts: list[str]) -> bool:
    """The same of `vault`, while what was asked may be lost with the server."""
    try:
        return bool((await program.client.request("vault.texts", timeout=2.0))["texts"] == texts)
    except errors.Rejection:
        return False


async def _waiting(control: Bus, tenant: str, count: int) -> bool:
    return len(await schedules.find(control, tenant)) == count
