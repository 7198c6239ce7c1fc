"""A tenant over its plan's rate: it is told so, and when to come again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from tenantry import errors
from tests.mesh import Answer, Mesh, Program, eventually

QUOTA, RATE = 5, 2.0
NOTE = {"text": "x"}


@pytest.fixture
async def slow(mesh: Mesh) -> AsyncIterator[Program]:
    """A tenant that may send 5 messages at once, and 2 a second."""
    plan = await mesh.plan("slow", rate=RATE, burst=QUOTA)
    async with mesh.program(plan=plan) as program:
        yield program


async def flood(program: Program, action: str = "notes.echo") -> Answer:
    """Send until a message is refused."""
    while True:
        answer = await program.ask(action, NOTE)
        if answer.code:
            return answer


async def test_over_the_rate_is_429(slow: Program) -> None:
    answer = await flood(slow)
    assert (answer.code, answer.json["status"]) == ("rate_limited", 429)


async def test_commands_and_unknown_actions_count_too(slow: Program) -> None:
    for action in ("notes.remember", "notes.nothing", "notes.texts"):
        await slow.ask(action, NOTE)
    codes = [(await slow.ask("notes.echo", NOTE)).code for _ in range(QUOTA)]
    assert "rate_limited" in codes


async def test_the_problem_is_ianas(slow: Program) -> None:
    problem = (await flood(slow)).json
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["default"]
    assert (problem["plan"], problem["quota"], problem["window"]) == ("slow", QUOTA, 3)


async def test_the_rate_fields_are_those_of_the_draft(slow: Program) -> None:
    headers = (await flood(slow)).headers
    assert headers["RateLimit-Policy"] == '"default";q=5;w=3'
    assert re.fullmatch(r'"default";r=0;t=[1-9]\d*', headers["RateLimit"])


async def test_retry_after_is_whole_seconds_and_no_less_than_the_body_says(slow: Program) -> None:
    answer = await flood(slow)
    assert int(answer.headers["Retry-After"]) >= answer.json["retry_after"] > 0


async def test_a_retry_after_the_time_told_succeeds(slow: Program) -> None:
    await asyncio.sleep((await flood(slow)).json["retry_after"] + 0.05)
    assert (await slow.ask("notes.echo", NOTE)).code == ""


async def test_the_client_raises_it_with_the_time(slow: Program) -> None:
    await flood(slow)
    with pytest.raises(errors.RateLimited) as caught:
        for _ in range(QUOTA):
            await slow.client.request("notes.echo", NOTE)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0


async def test_others_are_not_slowed(slow: Program, acme: Program) -> None:
    await flood(slow)
    codes = [(await acme.ask("notes.echo", NOTE)).code for _ in range(QUOTA * 4)]
    assert set(codes) == {""}


async def test_another_tenant_of_the_same_plan_has_a_budget_of_its_own(
    mesh: Mesh, slow: Program
) -> None:
    async with mesh.program(plan="slow") as other:
        await flood(slow)
        assert (await other.ask("notes.echo", NOTE)).code == ""


async def test_another_plan_changes_the_budget_at_once(mesh: Mesh, slow: Program) -> None:
    await mesh.control("set_plan", id=slow.id, plan="business")
    await eventually(lambda: _plan(slow, "business"))
    codes = [(await slow.ask("notes.echo", NOTE)).code for _ in range(QUOTA * 4)]
    assert set(codes) == {""}


async def test_a_changed_plan_holds_for_its_tenants(mesh: Mesh) -> None:
    plan = await mesh.plan("growing", rate=RATE, burst=QUOTA)
    async with mesh.program(plan=plan) as program:
        await flood(program)
        await mesh.plan("growing", rate=10_000.0, burst=10_000)
        await eventually(lambda: _allowed(program))
        codes = [(await program.ask("notes.echo", NOTE)).code for _ in range(QUOTA * 4)]
        assert set(codes) == {""}


async def _plan(program: Program, plan: str) -> bool:
    answer = await program.ask("notes.seen")
    return answer.code == "" and bool(answer.json["plan"] == plan)


async def _allowed(program: Program) -> bool:
    return (await program.ask("notes.echo", NOTE)).code == ""
