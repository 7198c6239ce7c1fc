"""A tenant's id after the tenant: not given out again, and what was erased is nobody's."""

from __future__ import annotations

import pytest

from tenantry import errors
from tenantry.bus import Bus, store
from tenantry.bus import jetstream as js
from tenantry.journal.erase import check_gone, erase
from tenantry.messages import Tenant
from tenantry_workers.tenants.store import TenantStore
from tests.isolation.attacker import let_in, user
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually, journal

PLACES = {
    "JOURNAL": "journal.*.{id}.>",
    "DEAD": "dead.{id}.>",
    "SCHEDULES": "schedule.{id}.>",
    "TIMERS": "timer.{id}.>",
    "KV_state": "$KV.state.{id}.>",
    "KV_usage": "$KV.usage.{id}",
    "KV_redrives": "$KV.redrives.{id}.*",
    "KV_replays": "$KV.replays.*.{id}",
    "KV_cursors": "$KV.cursors.*.{id}",
}


async def fill(control: Bus, tenant: str) -> None:
    """Leave something of the tenant in every place."""
    number = "1" * 32
    for subject in (
        *(f"tenant.{tenant}.archive.note", f"dead.{tenant}.archive.1"),
        *(f"schedule.{tenant}.archive.{number}", f"timer.{tenant}.archive.{number}"),
        *(f"$KV.state.{tenant}.archive.total", f"$KV.usage.{tenant}", f"$KV.redrives.{tenant}.1"),
        *(f"$KV.replays.archive.{tenant}", f"$KV.cursors.archive.{tenant}"),
    ):
        await store(control, subject, b"{}")


async def held(control: Bus, tenant: str) -> dict[str, int]:
    """How much there is of the tenant in each place."""
    return {
        stream: len(await js.get_batch(control, stream, subject=only.format(id=tenant)))
        for stream, only in PLACES.items()
    }


@cannot(11, Layer.CONTROL)
@pytest.mark.parametrize("again", ["create", "resume", "issue_credentials", "issue_context"])
async def test_a_deleted_id_is_not_given_out_again(mesh: Mesh, acme: Program, again: str) -> None:
    more = {
        "create": {"plan": "premium", "public_key": user().public_key},
        "issue_credentials": {"public_key": user().public_key},
        "issue_context": {"principal": "x"},
    }
    await mesh.control("delete", id=acme.id)
    with pytest.raises(errors.Conflict):
        await mesh.control(again, id=acme.id, **more.get(again, {}))
    assert (await mesh.control("show", id=acme.id))["state"] == "deleted"


@cannot(11, Layer.STORE, without=Layer.CONTROL)
async def test_the_record_of_a_deleted_tenant_is_not_written_over(
    mesh: Mesh, acme: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unchecked(self: TenantStore, tenant: Tenant) -> tuple[Tenant, int]:
        return tenant, await self._tenants.create(tenant.id, tenant)

    await mesh.control("delete", id=acme.id)
    monkeypatch.setattr(TenantStore, "create", unchecked)
    with pytest.raises(errors.Conflict):
        await mesh.control("create", id=acme.id)
    assert (await mesh.control("show", id=acme.id))["state"] == "deleted"


@cannot(11, Layer.CONTROL)
async def test_an_erased_id_is_not_given_out_either(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    """Its credentials stay revoked only as long as its record names them."""
    await mesh.control("delete", id=acme.id)
    await check_gone(control, acme.id)
    await erase(control, acme.id)
    with pytest.raises(errors.Conflict):
        await mesh.control("create", id=acme.id)
    assert not await let_in(mesh.url, acme.creds.read_text())


@cannot(11, Layer.STORE)
async def test_who_has_the_id_later_finds_nothing_of_the_former(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    """The record is taken away by hand, which nothing in the mesh does."""
    await acme.client.publish("notes.remember", {"text": "secret"})
    await acme.client.request("notes.emit", {"text": "secret", "count": 1})
    await eventually(lambda: _remembers(acme, ["secret"]))
    await eventually(lambda: _remembers(acme, ["secret0"], "followers"))
    await fill(control, acme.id)
    await mesh.control("delete", id=acme.id)
    await erase(control, acme.id)
    await js.api(control, "STREAM.PURGE.KV_tenants", {"filter": f"$KV.tenants.{acme.id}"})
    await mesh.control("create", id=acme.id, plan="business")
    left = await held(control, acme.id)
    assert {place: count for place, count in left.items() if place != "JOURNAL"} == dict.fromkeys(
        PLACES.keys() - {"JOURNAL"}, 0
    )
    assert {each.name for each in await journal(control, acme.id)} <= {"tenants.tenant_provisioned"}


@cannot(11, Layer.STORE)
@cannot(9, Layer.STORE)
async def test_erasing_one_leaves_those_that_begin_alike(mesh: Mesh, control: Bus) -> None:
    for name in ("gone", "gone-not"):
        await mesh.tenant(name)
        await fill(control, name)
    kept = await held(control, "gone-not")
    await mesh.control("delete", id="gone")
    await erase(control, "gone")
    assert await held(control, "gone-not") == kept
    assert set(kept.values()) - {0} == set(kept.values())


@can(11)
async def test_another_id_is_free(mesh: Mesh, acme: Program) -> None:
    await mesh.control("delete", id=acme.id)
    async with mesh.program(f"{acme.id}-2") as program:
        assert await program.texts() == []


async def _remembers(program: Program, texts: list[str], service: str = "notes") -> bool:
    return await program.texts(service) == texts
