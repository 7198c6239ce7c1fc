"""How long the asker waits reaches the handler, and what the handler asks in its turn."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tenantry import Context, Retry, Service, errors
from tenantry.bus import Bus
from tenantry.context.token import SKEW
from tenantry.letters import Letter, Letters, Selection
from tests.mesh import Mesh, Program, eventually
from tests.services import Note


async def remaining(program: Program, action: str = "notes.seen", **headers: str) -> float:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return float((await program.ask(action, headers=fields)).json["remaining"])


async def test_without_a_timeout_the_actions_own_holds(acme: Program) -> None:
    assert 1.0 < await remaining(acme) <= 5.0


async def test_a_shorter_timeout_of_the_asker_holds(acme: Program) -> None:
    assert 0.0 < await remaining(acme, Tenant_Timeout="1") <= 1.0


async def test_a_timeout_of_any_case_holds(acme: Program) -> None:
    assert 0.0 < await remaining(acme, tenant_timeout="1") <= 1.0


async def test_a_longer_timeout_of_the_asker_is_cut_to_the_actions_own(acme: Program) -> None:
    assert 1.0 < await remaining(acme, Tenant_Timeout="3600") <= 5.0


async def test_a_plan_caps_the_timeout(mesh: Mesh) -> None:
    plan = await mesh.plan("hasty", timeout=0.9)
    async with mesh.program(plan=plan) as program:
        assert 0.0 < await remaining(program) <= 0.9


async def test_a_clients_timeout_travels(acme: Program) -> None:
    answer = await acme.client.request("notes.seen", timeout=2.0)
    assert 0.0 < answer["remaining"] <= 2.0


@pytest.mark.parametrize(
    "value", ["soon", "0", "-1", "nan", "inf", "86400", "1e9", "1,5", "0x10", "9" * 3000]
)
async def test_a_timeout_that_is_none_is_refused(acme: Program, value: str) -> None:
    answer = await acme.ask("notes.seen", headers={"Tenant-Timeout": value})
    assert (answer.code, answer.json["status"]) == ("bad_message", 400)
    assert len(answer.data) < 1000


async def test_a_handler_is_cut_off_when_the_asker_has_given_up(acme: Program) -> None:
    answer = await acme.ask("notes.bad", {"text": "hang"}, headers={"Tenant-Timeout": "0.1"})
    assert (answer.code, answer.json["status"]) == ("deadline_exceeded", 504)


async def test_what_a_handler_asks_has_the_same_deadline(mesh: Mesh, acme: Program) -> None:
    service = Service("deep")

    @service.request("outer", public=True)
    async def outer(ctx: Context) -> list[float]:
        answer = await ctx.request("deep.inner", {}, type=list[float], timeout=3600)
        assert ctx.deadline is not None
        return [ctx.deadline, *answer]

    @service.request("inner", timeout=600)
    async def inner(ctx: Context) -> list[float]:
        assert ctx.deadline is not None
        return [ctx.deadline]

    running = mesh.start(mesh.worker(service))
    await eventually(lambda: _is_declared(acme, "deep.nothing"))
    mine, theirs = (await acme.ask("deep.outer", headers={"Tenant-Timeout": "2"})).json
    assert theirs == pytest.approx(mine, abs=1.0)
    await running.stop()


async def ask_inside(mesh: Mesh, program: Program, **fields: str) -> Any:
    """Ask as a router does; the answer's body."""
    token = mesh.minter().mint(program.id, "business", "edge")
    own = {name.replace("_", "-"): value for name, value in fields.items()}
    async with await mesh.insider("router") as router:
        answer = await router.call(
            f"request.{program.id}.notes.seen", b"{}", headers={"Tenant-Context": token, **own}
        )
    return json.loads(answer.data)


def _millis(ahead: float) -> str:
    return str(int((time.time() + ahead) * 1000))


async def test_the_time_to_answer_does_not_depend_on_the_other_machines_clock(
    mesh: Mesh, acme: Program
) -> None:
    late = _millis(-3)  # as of a router whose clock is 5 s behind
    answer = await ask_inside(mesh, acme, Tenant_Deadline=late, Tenant_Timeout="2")
    assert 0.0 < answer["remaining"] <= 2.0


async def test_a_deadline_that_is_past_by_more_than_clocks_are_apart_is_over(
    mesh: Mesh, acme: Program
) -> None:
    late = _millis(-SKEW - 3)
    answer = await ask_inside(mesh, acme, Tenant_Deadline=late, Tenant_Timeout="2")
    assert answer["code"] == "deadline_exceeded"


@pytest.mark.parametrize("timeout", ["", "nan", "soon"])
async def test_without_a_time_to_answer_the_deadline_holds(
    mesh: Mesh, acme: Program, timeout: str
) -> None:
    late = _millis(-3)
    answer = await ask_inside(mesh, acme, Tenant_Deadline=late, Tenant_Timeout=timeout)
    assert answer["code"] == "deadline_exceeded"


@pytest.mark.parametrize("deadline", ["", "soon", "9" * 400])
async def test_a_deadline_that_is_none_is_not_counted(
    mesh: Mesh, acme: Program, deadline: str
) -> None:
    answer = await ask_inside(mesh, acme, Tenant_Deadline=deadline)
    assert answer["remaining"] > 0


@pytest.fixture
def slow(mesh: Mesh) -> Iterator[Service]:
    """A service whose actions ask one that does not answer in time, within 0.2 s or for longer."""
    service = Service("slow", retry=Retry(tries=1))

    @service.request("outer", public=True)
    async def outer(ctx: Context) -> None:
        await ctx.request("slow.inner", {}, type=Note, timeout=0.2)

    @service.request("patient", public=True)
    async def patient(ctx: Context) -> None:
        await ctx.request("slow.inner", {}, type=Note, timeout=60)

    @service.request("at_once", public=True)
    async def at_once(ctx: Context) -> None:
        await ctx.request("slow.inner", {}, type=Note, timeout=0)

    @service.command("work", public=True)
    async def work(ctx: Context) -> None:
        await ctx.request("slow.inner", {}, type=Note, timeout=0.2)

    @service.request("inner")
    async def inner(_ctx: Context) -> Note:
        await asyncio.sleep(5)
        return Note("late")

    running = mesh.start(mesh.worker(service))
    yield service
    mesh.end(running)


@pytest.mark.parametrize(
    ("action", "timeout"), [("outer", "20"), ("patient", "0.3"), ("at_once", "20")]
)
async def test_who_is_asked_in_turn_and_is_late_is_504(
    acme: Program, slow: Service, action: str, timeout: str
) -> None:
    with capture_logs() as logs:
        answer = await acme.ask(f"slow.{action}", headers={"Tenant-Timeout": timeout})
    assert (answer.code, answer.json["status"]) == ("deadline_exceeded", 504)
    assert "inner" not in answer.data.decode()
    (why,) = [each["exc_info"] for each in logs if each["event"] == "handler failed"]
    assert re.match("slow.inner did not answer within|no time is left to ask slow.inner", str(why))


async def test_a_dead_letter_names_who_was_late(control: Bus, acme: Program, slow: Service) -> None:
    await acme.client.publish("slow.work", {})
    found: list[Letter] = []

    async def given_up() -> bool:
        found[:] = [each async for each in Letters(control).select(Selection(tenant=acme.id))]
        return len(found) == 1

    await eventually(given_up)
    assert found[0].about.reason == "deadline_exceeded"
    assert "slow.inner did not answer" in found[0].about.detail


async def test_a_client_gives_up_after_its_own_timeout(acme: Program) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await acme.client.request("notes.echo", Note("x"), timeout=0.0001)


async def _is_declared(program: Program, action: str) -> bool:
    return (await program.ask(action)).code == "unknown_action"
