"""How long the asker waits reaches the handler, and what the handler asks in its turn."""

from __future__ import annotations

import pytest

from tenantry import Context, Service, errors
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
    assert theirs == pytest.approx(mine, abs=0.01)
    await running.stop()


async def test_a_client_gives_up_after_its_own_timeout(acme: Program) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await acme.client.request("notes.echo", Note("x"), timeout=0.0001)


async def _is_declared(program: Program, action: str) -> bool:
    return (await program.ask(action)).code == "unknown_action"
