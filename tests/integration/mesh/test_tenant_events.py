"""Each change of a tenant is one event in its journal, which services may follow."""

from __future__ import annotations

import json

from tenantry import Context, Service
from tenantry.bus import Bus
from tenantry.messages import TenantProvisioned
from tests.mesh import Entry, Mesh, eventually, journal
from tests.services import Texts

LIFE = [
    "tenants.tenant_provisioned",
    "tenants.credentials_issued",
    "tenants.tenant_plan_changed",
    "tenants.tenant_suspended",
    "tenants.tenant_resumed",
    "tenants.credentials_revoked",
    "tenants.tenant_deleted",
]


async def live(mesh: Mesh, control: Bus, name: str) -> list[Entry]:
    """Lead a whole life, and return its events."""
    await mesh.control("create", id=name)
    key = (await mesh.control("issue_credentials", id=name, public_key=_key()))["tenant"]
    await mesh.control("set_plan", id=name, plan="business")
    await mesh.control("suspend", id=name, reason="has not paid")
    await mesh.control("resume", id=name)
    await mesh.control(
        "revoke_credentials", id=name, public_key=key["credentials"][0]["public_key"]
    )
    await mesh.control("delete", id=name)
    await eventually(lambda: _has(control, name, LIFE[-1]))
    return await journal(control, name)


async def test_each_change_is_one_event_in_order(mesh: Mesh, control: Bus) -> None:
    assert [event.name for event in await live(mesh, control, "alive")] == LIFE


async def test_each_event_has_an_id_of_its_revision(mesh: Mesh, control: Bus) -> None:
    ids = [event.headers["Nats-Msg-Id"] for event in await live(mesh, control, "alive-2")]
    numbers = [int(text.removeprefix("alive-2.t.")) for text in ids]
    assert numbers == sorted(set(numbers))


async def test_an_event_tells_what_has_changed(mesh: Mesh, control: Bus) -> None:
    events = {event.name: json.loads(event.data) for event in await live(mesh, control, "alive-3")}
    assert {event["tenant"] for event in events.values()} == {"alive-3"}
    assert events["tenants.tenant_provisioned"]["plan"] == "standard"
    assert events["tenants.tenant_plan_changed"]["plan"] == "business"
    assert events["tenants.tenant_suspended"]["reason"] == "has not paid"
    assert events["tenants.credentials_issued"]["public_key"].startswith("U")


async def test_what_changes_nothing_is_no_event(mesh: Mesh, control: Bus) -> None:
    await mesh.control("create", id="still")
    for _ in range(2):
        await mesh.control("suspend", id="still")
        await mesh.control("set_plan", id="still", plan="standard")
    await mesh.control("delete", id="still")
    await eventually(lambda: _has(control, "still", "tenants.tenant_deleted"))
    names = [
        event.name.removeprefix("tenants.tenant_") for event in await journal(control, "still")
    ]
    assert names == ["provisioned", "suspended", "deleted"]


async def test_a_service_follows_them_in_the_tenants_name(mesh: Mesh) -> None:
    service = Service("greeter")

    @service.on("tenants.tenant_provisioned")
    async def greet(ctx: Context, event: TenantProvisioned) -> None:
        await ctx.state.put("greeted", Texts((ctx.tenant, ctx.principal, event.plan)))

    @service.request("texts", public=True)
    async def texts(ctx: Context) -> Texts:
        entry = await ctx.state.get("greeted", Texts)
        return entry.value if entry else Texts()

    running = mesh.start(mesh.worker(service))
    async with mesh.program(plan="premium") as program:
        await eventually(lambda: _greeted(program, [program.id, "platform", "premium"]))
    await running.stop()


def _key() -> str:
    from tenantry.operator.keys import KeyPair, Kind

    return KeyPair.generate(Kind.USER).public_key


async def _has(control: Bus, tenant: str, name: str) -> bool:
    return bool(await journal(control, tenant, name))


async def _greeted(program: object, texts: list[str]) -> bool:
    return bool(await program.texts("greeter") == texts)  # type: ignore[attr-defined]
