"""Quotas of a day or month, as a tenant's programs meet them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tenantry.bus import Bus
from tenantry.journal import Selection, read
from tenantry.messages import Quota, Rate
from tenantry_workers.router import RouterWorker
from tests import services
from tests.mesh import Mesh, Program, eventually


@pytest.fixture
async def limited(mesh: Mesh) -> AsyncIterator[Any]:
    """Makes a tenant on a plan with these limits."""
    programs = []

    async def make(*quotas: Quota, **fields: Any) -> Program:
        name = f"limited_{time.monotonic_ns()}"
        await mesh.plan(name, quotas=quotas, **{"rate": 1000.0, "burst": 1000} | fields)
        context = mesh.program(plan=name)
        programs.append(context)
        return await context.__aenter__()

    yield make
    for context in programs:
        await context.__aexit__(None, None, None)


def day(amount: int, **fields: Any) -> Quota:
    return Quota(period="day", amount=amount, **fields)


async def codes(program: Program, count: int, action: str = "notes.texts") -> list[str]:
    """What comes back to so many requests, one after another; empty for a result."""
    return [(await program.ask(action)).code for _ in range(count)]


async def events(control: Bus, program: Program) -> list[tuple[str, dict[str, Any]]]:
    wanted = Selection(tenant=program.id, service="tenants")
    return [
        (message.subject.rpartition(".")[2], msgspec.json.decode(message.data))
        async for message in read(control, wanted)
    ]


async def test_what_is_over_the_quota_is_refused(limited: Any) -> None:
    program = await limited(day(3))
    assert await codes(program, 5) == ["", "", "", "quota_exceeded", "quota_exceeded"]


async def test_the_refusal_tells_which_quota_and_when_it_begins_anew(limited: Any) -> None:
    program = await limited(day(1))
    await program.ask("notes.texts")
    refusal = await program.ask("notes.texts")
    assert refusal.json["violated-policies"] == ["per-day"]
    assert 0 < int(refusal.headers["Retry-After"]) <= 86_400
    assert refusal.headers["RateLimit-Policy"] == '"per-day";q=1;w=86400'
    assert refusal.headers["RateLimit"].startswith('"per-day";r=0;t=')


async def test_an_answer_tells_what_is_left(limited: Any) -> None:
    program = await limited(day(10))
    answers = [await program.ask("notes.texts") for _ in range(2)]
    left = [answer.headers["RateLimit"].split(";")[1] for answer in answers]
    assert left == ["r=9", "r=8"]
    assert answers[0].headers["RateLimit-Policy"] == '"per-day";q=10;w=86400'


async def test_without_a_quota_an_answer_tells_nothing(acme: Program) -> None:
    assert "RateLimit" not in (await acme.ask("notes.texts")).headers


async def test_a_quota_of_one_action_leaves_the_others(limited: Any) -> None:
    program = await limited(day(1, scope="notes.texts"))
    assert await codes(program, 2) == ["", "quota_exceeded"]
    assert await codes(program, 2, "notes.seen") == ["", ""]


async def test_a_rate_of_one_action_is_named(limited: Any) -> None:
    program = await limited(rates=(Rate(scope="notes.texts", rate=0.001, burst=1),))
    await program.ask("notes.texts")
    refusal = await program.ask("notes.texts")
    assert (refusal.code, refusal.json["violated-policies"]) == ("rate_limited", ["notes.texts"])
    assert await codes(program, 2, "notes.seen") == ["", ""]


async def test_a_rate_in_shadow_refuses_nothing(limited: Any) -> None:
    program = await limited(rates=(Rate(scope="notes", rate=0.001, burst=1, shadow=True),))
    assert await codes(program, 3) == ["", "", ""]


async def test_a_burst_keeps_its_order(limited: Any) -> None:
    program = await limited(day(1000))
    await remember(program, 50)
    await eventually(lambda: _has(program, 50))
    assert await program.texts() == [str(number) for number in range(50)]


async def remember(program: Program, count: int) -> None:
    """So many commands as fast as they go."""
    subject = f"tenant.{program.id}.notes.remember"
    for number in range(count):
        await program.plain.publish(subject, b'{"text": "%d"}' % number)


async def _has(program: Program, count: int) -> bool:
    return len(await program.texts()) == count


async def test_what_is_slowed_down_keeps_its_order_and_arrives(limited: Any) -> None:
    program = await limited(day(40, soft=5, between="slow", delay=0.2, scope="notes.remember"))
    await remember(program, 30)
    await eventually(lambda: _has(program, 30))
    assert await program.texts() == [str(number) for number in range(30)]


async def test_what_is_slowed_down_comes_no_sooner_than_its_delay(limited: Any) -> None:
    program = await limited(day(4, soft=2, between="slow", delay=1.0))
    took = []
    for _ in range(4):
        began = time.monotonic()
        assert (await program.ask("notes.texts")).code == ""
        took.append(time.monotonic() - began)
    assert took[2] >= 0.5  # half way from soft to hard
    assert took[3] >= 1.0
    assert (await program.ask("notes.texts")).code == "quota_exceeded"


async def test_another_tenant_is_not_slowed_down_with_it(limited: Any, acme: Program) -> None:
    program = await limited(day(2, soft=0, between="slow", delay=5.0))
    await program.ask("notes.texts")
    slow = asyncio.create_task(program.ask("notes.texts"))
    assert (await acme.ask("notes.texts")).code == ""
    assert not slow.done()
    assert (await slow).code == ""


async def test_a_message_that_is_refused_for_itself_does_not_count(
    limited: Any, control: Bus
) -> None:
    program = await limited(day(3))
    assert await codes(program, 3, "notes.nothing") == ["unknown_action"] * 3
    assert await codes(program, 4) == ["", "", "", "quota_exceeded"]


async def test_at_80_percent_and_at_the_end_the_tenant_gets_an_event(
    limited: Any, control: Bus
) -> None:
    program = await limited(day(10))
    await codes(program, 12)

    async def told() -> bool:
        names = [name for name, _ in await events(control, program)]
        return {"quota_warned", "quota_exhausted"} <= set(names) or "quota_exhausted" in names

    await eventually(told, within=40.0)
    exhausted = dict(await events(control, program))["quota_exhausted"]
    assert (exhausted["quota"], exhausted["used"], exhausted["amount"]) == ("per-day", 10, 10)


async def test_a_warning_comes_before_the_end(limited: Any, control: Bus) -> None:
    program = await limited(day(10))
    await codes(program, 8)

    async def told() -> list[str]:
        return [name for name, _ in await events(control, program) if "quota" in name]

    async def warned() -> bool:
        return await told() == ["quota_warned"]

    await eventually(warned, within=40.0)


async def test_two_routers_together_keep_the_quota(own_mesh: Mesh) -> None:
    own_mesh.start(RouterWorker(own_mesh.options()))
    own_mesh.start(own_mesh.worker(services.notes))
    name = await own_mesh.plan("limited", quotas=(day(40),), rate=1000.0, burst=1000)
    async with own_mesh.program(plan=name) as program:
        answers = await asyncio.gather(*(program.ask("notes.texts") for _ in range(100)))
        first = sum(not answer.code for answer in answers)
        assert first <= 40
        # What one router holds in reserve comes back when it was idle for a while.
        await eventually(lambda: _used_up(program), within=40.0)


async def _used_up(program: Program) -> bool:
    return (await program.ask("notes.texts")).code == "quota_exceeded"
