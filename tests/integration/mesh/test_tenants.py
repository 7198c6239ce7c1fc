"""The tenants worker: what `platform.tenants.*` does to a tenant's record."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tenantry import errors
from tenantry.operator.keys import KeyPair, Kind
from tests.mesh import Mesh

_numbers = itertools.count(1)


@pytest.fixture
def name() -> str:
    """An id that no test has used."""
    return f"made-{next(_numbers)}"


async def test_a_created_tenant_is_shown(mesh: Mesh, name: str) -> None:
    created = (await mesh.control("create", id=name, plan="premium"))["tenant"]
    shown = await mesh.control("show", id=name)
    assert shown == created
    assert (shown["id"], shown["plan"], shown["state"]) == (name, "premium", "active")


async def test_a_tenant_is_on_the_standard_plan_unless_told(mesh: Mesh, name: str) -> None:
    assert (await mesh.control("create", id=name))["tenant"]["plan"] == "standard"


async def test_without_a_public_key_there_are_no_credentials(mesh: Mesh, name: str) -> None:
    created = await mesh.control("create", id=name)
    assert (created["jwt"], created["tenant"]["credentials"]) == (None, [])


async def test_an_id_that_is_in_use_is_a_conflict(mesh: Mesh, name: str) -> None:
    await mesh.control("create", id=name)
    with pytest.raises(errors.Conflict):
        await mesh.control("create", id=name, plan="premium")
    assert (await mesh.control("show", id=name))["plan"] == "standard"


async def test_of_several_at_once_one_creates(mesh: Mesh, name: str) -> None:
    results = await asyncio.gather(
        *(mesh.control("create", id=name) for _ in range(8)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, errors.Conflict)]
    assert len(refused) == 7


@pytest.mark.parametrize("good", ["x", "0", "x" * 63, "xn--a-b", "1-2-3"])
async def test_every_dns_label_is_an_id(mesh: Mesh, good: str) -> None:
    assert (await mesh.control("create", id=good))["tenant"]["id"] == good


async def test_a_plan_that_is_unknown_is_not_found(mesh: Mesh, name: str) -> None:
    with pytest.raises(errors.NotFound):
        await mesh.control("create", id=name, plan="golden")
    with pytest.raises(errors.NotFound):
        await mesh.control("show", id=name)


async def test_a_plan_with_a_line_feed_is_not_found(mesh: Mesh, name: str) -> None:
    with pytest.raises(errors.NotFound):
        await mesh.control("create", id=name, plan="standard\n")


@pytest.mark.parametrize("public_key", ["", "UABC", "A" * 56, "U" + "1" * 55])
async def test_what_is_no_public_key_is_refused(mesh: Mesh, name: str, public_key: str) -> None:
    with pytest.raises(errors.BadMessage) as caught:
        await mesh.control("create", id=name, public_key=public_key)
    assert caught.value.path == "$.public_key"


async def test_a_key_with_a_wrong_checksum_is_refused(mesh: Mesh, name: str) -> None:
    with pytest.raises(errors.BadMessage) as caught:
        await mesh.control("create", id=name, public_key="U" + "A" * 55)
    assert caught.value.path == "$.public_key"
    with pytest.raises(errors.NotFound):
        await mesh.control("show", id=name)


@pytest.mark.parametrize("action", ["show", "suspend", "resume", "delete"])
async def test_a_tenant_that_is_not_there_is_not_found(mesh: Mesh, name: str, action: str) -> None:
    for missing in (name, f"{name}\n"):
        with pytest.raises(errors.NotFound):
            await mesh.control(action, id=missing)


async def test_a_tenant_is_suspended_and_resumed(mesh: Mesh, name: str) -> None:
    await mesh.control("create", id=name)
    assert (await mesh.control("suspend", id=name))["tenant"]["state"] == "suspended"
    assert (await mesh.control("resume", id=name))["tenant"]["state"] == "active"


async def test_a_tenant_gets_another_plan(mesh: Mesh, name: str) -> None:
    await mesh.control("create", id=name)
    assert (await mesh.control("set_plan", id=name, plan="business"))["tenant"][
        "plan"
    ] == "business"


async def test_a_plan_that_is_unknown_is_not_set(mesh: Mesh, name: str) -> None:
    await mesh.control("create", id=name)
    with pytest.raises(errors.NotFound):
        await mesh.control("set_plan", id=name, plan="golden")


async def test_another_plan_leaves_a_suspended_tenant_suspended(mesh: Mesh, name: str) -> None:
    await mesh.control("create", id=name)
    await mesh.control("suspend", id=name)
    await mesh.control("set_plan", id=name, plan="business")
    assert (await mesh.control("show", id=name))["state"] == "suspended"


async def test_changes_at_the_same_time_all_hold(mesh: Mesh, name: str) -> None:
    await mesh.control("create", id=name)
    await asyncio.gather(
        mesh.control("suspend", id=name), mesh.control("set_plan", id=name, plan="premium")
    )
    shown = await mesh.control("show", id=name)
    assert (shown["state"], shown["plan"]) == ("suspended", "premium")


async def test_a_deleted_tenant_is_still_shown(mesh: Mesh, name: str) -> None:
    await mesh.control("create", id=name)
    await mesh.control("delete", id=name)
    assert (await mesh.control("show", id=name))["state"] == "deleted"


@pytest.mark.parametrize("action", ["create", "suspend", "resume", "delete"])
async def test_a_deleted_tenant_stays_deleted(mesh: Mesh, name: str, action: str) -> None:
    await mesh.control("create", id=name)
    await mesh.control("delete", id=name)
    with pytest.raises(errors.Conflict):
        await mesh.control(action, id=name)
    assert (await mesh.control("show", id=name))["state"] == "deleted"


async def test_tenants_are_listed_in_pages_in_the_order_of_their_ids(mesh: Mesh) -> None:
    names = [f"zz-{number}" for number in range(5)]
    for name in reversed(names):
        await mesh.control("create", id=name)
    listed: list[str] = []
    after: str | None = "zz"
    while after is not None:
        page = await mesh.control("list", after=after, limit=2)
        assert len(page["tenants"]) <= 2
        listed += [tenant["id"] for tenant in page["tenants"]]
        after = page["next"]
    assert listed == names


async def test_the_last_page_has_no_next(mesh: Mesh) -> None:
    assert (await mesh.control("list", after="zzz"))["next"] is None


async def test_a_list_says_how_many_credentials_are_in_force(mesh: Mesh) -> None:
    key = KeyPair.generate(Kind.USER).public_key
    await mesh.control("create", id="zx-1", public_key=key)
    await mesh.control("create", id="zx-2")
    assert (await mesh.control("list", after="zx", limit=2))["credentials"] == [1, 0]
    await mesh.control("revoke_credentials", id="zx-1", public_key=key)
    assert (await mesh.control("list", after="zx", limit=2))["credentials"] == [0, 0]


async def test_a_list_may_be_of_one_state(mesh: Mesh) -> None:
    for name in ("zy-1", "zy-2", "zy-3"):
        await mesh.control("create", id=name)
    await mesh.control("suspend", id="zy-2")
    page = await mesh.control("list", after="zy", limit=1, state="suspended")
    assert [tenant["id"] for tenant in page["tenants"]] == ["zy-2"]


@pytest.mark.parametrize("limit", [0, 1001, -1])
async def test_a_page_has_1_to_1000_tenants(mesh: Mesh, limit: int) -> None:
    with pytest.raises(errors.BadMessage):
        await mesh.control("list", limit=limit)


async def test_the_shipped_plans_are_listed(mesh: Mesh) -> None:
    plans = {plan["name"] for plan in (await mesh.control("plans"))["plans"]}
    assert plans >= {"standard", "premium", "business"}
