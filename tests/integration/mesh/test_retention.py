"""How long the journal keeps a tenant's messages: as its plan says, or what it has beside it."""

from __future__ import annotations

import pytest

from tenantry.bus import Bus
from tenantry.control import Control
from tests.integration.mesh.planner import Wish, planner
from tests.integration.mesh.planning import plan
from tests.integration.mesh.test_issue_context import verified
from tests.mesh import Entry, Mesh, Program, eventually, journal

OWN = {"retention": 3_600}


@pytest.fixture
async def own(mesh: Mesh, acme: Program) -> Program:
    """A tenant that has an hour, whatever its plan says."""
    await mesh.control("override", id=acme.id, override=OWN)
    return acme


async def only(control: Bus, tenant: str, name: str) -> Entry:
    async def is_there() -> bool:
        return bool(await journal(control, tenant, name))

    await eventually(is_there)
    (entry,) = await journal(control, tenant, name)
    return entry


async def test_an_event_about_a_tenant_lives_as_long_as_its_own_limits_say(
    own: Program, control: Bus
) -> None:
    entry = await only(control, own.id, "tenants.resource_quota_updated")
    assert entry.headers["Nats-TTL"] == "3600s"


async def test_one_about_a_tenant_without_any_lives_as_long_as_its_plan_says(
    acme: Program, control: Bus
) -> None:
    entry = await only(control, acme.id, "tenants.tenant_provisioned")
    assert entry.headers["Nats-TTL"] == "31536000s"


async def test_what_is_sent_later_does_too(mesh: Mesh, own: Program, control: Bus) -> None:
    mesh.start(mesh.worker(planner()))
    await mesh.ready(own, "planner.plan")
    await plan(own, Wish("x", after=0))
    assert (await only(control, own.id, "notes.remember")).headers["Nats-TTL"] == "3600s"


async def test_so_does_what_an_operator_does_for_it(mesh: Mesh, own: Program, control: Bus) -> None:
    token = await Control(control).issue_context(own.id)
    assert verified(mesh, token, own.id).retention == 3_600


async def test_without_them_the_plan_holds_again(mesh: Mesh, own: Program, control: Bus) -> None:
    await mesh.control("override", id=own.id, override=None)
    token = await Control(control).issue_context(own.id)
    assert verified(mesh, token, own.id).retention == 365 * 86_400
