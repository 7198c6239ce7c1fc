"""Dead letters: whose they are is what their subject says, and they go nowhere else."""

from __future__ import annotations

import pytest

from tenantry.bus import Bus, api
from tenantry.errors import NotAllowed, NotFound
from tenantry.letters import Letters, Selection
from tenantry.redrive import Outcome, Redriver
from tests.isolation.cases import Layer, can, cannot
from tests.letters import died, lay, sent
from tests.mesh import Program, eventually, journal


async def redrive(control: Bus, tenant: str, number: int, principal: str | None = None) -> Outcome:
    told: list[Outcome] = []
    async with Redriver(control, principal=principal) as redriver:
        await redriver.redrive({tenant: [number]}, told.append)
    return told[0]


async def left(control: Bus, tenant: str) -> list[int]:
    return [each.number async for each in Letters(control).select(Selection(tenant=tenant))]


async def redriven(control: Bus, tenant: str) -> list[bytes]:
    found = await journal(control, tenant, "notes.remember")
    return [entry.data for entry in found if "Tenant-Only" in entry.headers]


@cannot(41, Layer.CLI, Layer.CONTEXT)
async def test_a_letter_with_another_tenants_message_is_not_redriven(
    control: Bus, acme: Program, globex: Program
) -> None:
    number = await lay(control, globex.id, await sent(control, acme, "of acme"))
    outcome = await redrive(control, globex.id, number)
    assert outcome.result == "refused"
    assert await redriven(control, globex.id) == []
    assert await redriven(control, acme.id) == []
    assert await left(control, globex.id) == [number]


@cannot(41, Layer.CONTEXT, without=Layer.CLI)
async def test_a_redriven_message_with_another_tenants_context_is_handled_by_nobody(
    control: Bus,
    acme: Program,
    globex: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the redrive passed on the context that it found."""
    entry = await sent(control, acme, "of acme")
    number = await lay(control, globex.id, entry)

    async def found(*_: object) -> str:
        return entry.headers["Tenant-Context"]

    monkeypatch.setattr(Redriver, "_token", found)
    monkeypatch.setattr(Redriver, "_whose", lambda *_: ("edge", ()))
    monkeypatch.setattr("tenantry.redrive.names.TTL", "none")
    assert (await redrive(control, globex.id, number)).result == "redriven"
    await eventually(lambda: gave_up(control, globex))
    assert await globex.texts() == []


@cannot(41, Layer.STORE)
async def test_a_letter_named_under_another_tenant_goes_to_its_own(
    control: Bus, acme: Program, globex: Program
) -> None:
    """The number is what counts; whose it is stands in the stream."""
    number = await died(control, acme, "of acme")
    assert (await redrive(control, globex.id, number)).result == "redriven"
    assert await redriven(control, globex.id) == []
    assert len(await redriven(control, acme.id)) == 1


@can(41)
async def test_a_letter_is_redriven_to_its_own_tenant(control: Bus, acme: Program) -> None:
    number = await died(control, acme, "mine")
    assert (await redrive(control, acme.id, number)).result == "redriven"

    async def again() -> bool:
        return await acme.texts() == ["mine", "mine"]

    await eventually(again)


@cannot(2, Layer.GRAMMAR)
@cannot(3, Layer.GRAMMAR)
@pytest.mark.parametrize("tenant", ["*", ">", "{acme}.>", "{acme}*", ""])
async def test_a_selection_reaches_no_further_than_one_tenant(
    control: Bus, acme: Program, globex: Program, tenant: str
) -> None:
    await lay(control, globex.id, await sent(control, globex, "of globex"))
    which = Selection(tenant=tenant.format(acme=acme.id))
    with pytest.raises(Exception, match="not a tenant id"):
        await anext(Letters(control).select(which))


@cannot(63, Layer.STORE)
async def test_a_selection_takes_no_letters_of_another(
    control: Bus, acme: Program, globex: Program
) -> None:
    mine = await lay(control, acme.id, await sent(control, acme, "of acme"))
    theirs = await lay(control, globex.id, await sent(control, globex, "of globex"))
    assert await left(control, acme.id) == [mine]
    assert await left(control, globex.id) == [theirs]


@can(63)
async def test_a_letter_is_dropped_alone(control: Bus, acme: Program, globex: Program) -> None:
    mine = await lay(control, acme.id, await sent(control, acme, "of acme"))
    theirs = await lay(control, globex.id, await sent(control, globex, "of globex"))
    assert await Letters(control).drop(mine)
    with pytest.raises(NotFound):
        await Letters(control).get(mine)
    assert await left(control, globex.id) == [theirs]


@cannot(63, Layer.SERVER)
@pytest.mark.parametrize("call", ["STREAM.MSG.GET.DEAD", "STREAM.MSG.DELETE.DEAD"])
async def test_a_service_reads_and_takes_no_letters(
    control: Bus, insider: Bus, acme: Program, call: str
) -> None:
    mine = await lay(control, acme.id, await sent(control, acme, "of acme"))
    with pytest.raises(NotAllowed):
        await api(insider, call, {"seq": mine})
    assert await left(control, acme.id) == [mine]


async def gave_up(control: Bus, program: Program) -> bool:
    found = Letters(control).select(Selection(tenant=program.id, reason="bad_context"))
    return [each.body async for each in found] != []
