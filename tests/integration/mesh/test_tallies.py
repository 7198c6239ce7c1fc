"""What every instance tells of its tenants, and to whom."""

from __future__ import annotations

import asyncio

import msgspec

from tenantry.bus import Bus
from tenantry.messages import Rate, RateLevel, Tallies, TenantTally
from tests.mesh import Mesh, Program, eventually


async def told(bus: Bus, **ask: object) -> dict[str, Tallies]:
    """The answers by service."""
    answers = await bus.gather("stats.tenants", msgspec.json.encode(ask), wait=0.3)
    found = [msgspec.json.decode(each.data, type=Tallies) for each in answers]
    return {each.service: each for each in found}


async def of(bus: Bus, service: str, tenant: str) -> TenantTally:
    """What one service tells of one tenant."""
    answer = (await told(bus, tenants=[tenant]))[service]
    return answer.tenants[0] if answer.tenants else TenantTally(tenant=tenant)


async def test_every_instance_answers(control: Bus) -> None:
    assert {"router", "notes", "followers"} <= (await told(control)).keys()


async def test_the_control_plane_itself_does_not(control: Bus) -> None:
    assert "tenants" not in await told(control)


async def test_a_router_tells_what_it_has_let_in(control: Bus, acme: Program) -> None:
    before = (await of(control, "router", acme.id)).handled
    await acme.client.request("notes.texts")
    assert (await of(control, "router", acme.id)).handled == before + 1


async def test_a_router_tells_what_it_has_refused(control: Bus, acme: Program) -> None:
    await acme.ask("nobody.nothing")
    assert (await of(control, "router", acme.id)).refused["unknown_action"] >= 1


async def test_a_service_tells_what_it_has_handled(control: Bus, acme: Program) -> None:
    await acme.client.request("notes.texts")
    found = await of(control, "notes", acme.id)
    assert (found.handled, found.failed, sum(found.latency)) == (1, 0, 1)


async def test_a_service_tells_what_has_failed(control: Bus, acme: Program) -> None:
    assert (await acme.ask("notes.bad", b"[]")).code == "bad_message"
    assert (await of(control, "notes", acme.id)).failed == 1


async def test_a_service_tells_what_it_has_handled_of_the_journal(
    control: Bus, acme: Program
) -> None:
    await acme.client.publish("notes.remember", {"text": "x"})

    async def counted() -> bool:
        return (await of(control, "notes", acme.id)).handled == 1

    await eventually(counted)


async def test_what_is_done_is_not_in_hand(control: Bus, acme: Program) -> None:
    await acme.client.request("notes.texts")
    assert (await of(control, "notes", acme.id)).running == 0


async def test_of_others_nothing_is_told(control: Bus, acme: Program, globex: Program) -> None:
    await asyncio.gather(acme.client.request("notes.texts"), globex.client.request("notes.texts"))
    found = await told(control, tenants=[acme.id])
    assert {each.tenant for each in found["notes"].tenants} == {acme.id}


async def test_without_names_the_first_are_told(control: Bus, acme: Program) -> None:
    await acme.client.request("notes.texts")
    answer = (await told(control, by="latency", limit=1))["notes"]
    assert (len(answer.tenants), answer.known >= 1) == (1, True)


async def test_a_service_may_not_ask(mesh: Mesh, acme: Program) -> None:
    await acme.client.request("notes.texts")
    for role in (("service", "notes"), ("router",)):
        async with await mesh.insider(*role) as bus:
            assert await told(bus) == {}


async def test_a_router_tells_what_is_left_of_a_tenant_s_rates(mesh: Mesh, control: Bus) -> None:
    rate = Rate(scope="notes.texts", rate=0.001, burst=5)
    plan = await mesh.plan("leveled", rate=0.001, burst=100, rates=(rate,))
    async with mesh.program(plan=plan) as program:
        before = await _levels(control, program.id)
        await program.client.request("notes.texts")
        after = await _levels(control, program.id)
    assert [level.scope for level in after] == ["", "notes.texts"]
    assert [round(was.left - now.left) for was, now in zip(before, after, strict=True)] == [1, 1]
    assert after[1].left < 5


async def test_levels_are_told_only_where_asked_for(control: Bus, acme: Program) -> None:
    assert (await told(control, tenants=[acme.id]))["router"].levels == {}


async def test_of_who_is_no_tenant_there_are_none(control: Bus) -> None:
    assert await _levels(control, "nobody-here") == ()


async def _levels(control: Bus, tenant: str) -> tuple[RateLevel, ...]:
    return (await told(control, tenants=[tenant], levels=True))["router"].levels[tenant]
