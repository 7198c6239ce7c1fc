"""`platform.tenants.issue_context`: a context for what an operator does in a tenant's name."""

from __future__ import annotations

import time

import pytest

from tenantry import errors
from tenantry.bus import Bus
from tenantry.context.claims import Claims
from tenantry.context.token import KeyRing, Trusted
from tenantry.control import Control
from tests.mesh import Mesh, Program


def verified(mesh: Mesh, token: str, tenant: str) -> Claims:
    minter, ring = mesh.minter(), KeyRing()
    ring.replace({minter.kid: Trusted(minter.public_key)})
    return ring.verify(token, tenant, time.time())


async def test_a_context_says_whose_it_is_and_who_asked(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    token = await Control(control).issue_context(acme.id, principal="ada", roles=("support",))
    claims = verified(mesh, token, acme.id)
    assert (claims.tenant, claims.plan) == (acme.id, "business")
    assert (claims.principal, claims.roles) == ("ada", ("support",))
    assert claims.retention == 365 * 86_400


async def test_a_context_is_of_no_other_tenant(mesh: Mesh, acme: Program, control: Bus) -> None:
    token = await Control(control).issue_context(acme.id)
    with pytest.raises(errors.BadContext):
        verified(mesh, token, "initech")


async def test_a_suspended_tenant_can_be_worked_for(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    await mesh.control("suspend", id=acme.id)
    assert verified(mesh, await Control(control).issue_context(acme.id), acme.id).tenant == acme.id


async def test_an_unknown_tenant_gets_no_context(control: Bus) -> None:
    with pytest.raises(errors.NotFound):
        await Control(control).issue_context("nobody")


async def test_a_deleted_tenant_gets_no_context(mesh: Mesh, acme: Program, control: Bus) -> None:
    await mesh.control("delete", id=acme.id)
    with pytest.raises(errors.Conflict, match="deleted"):
        await Control(control).issue_context(acme.id)


async def test_a_service_gets_no_context(insider: Bus, acme: Program) -> None:
    with pytest.raises(errors.NotAllowed):
        await Control(insider).issue_context(acme.id)
