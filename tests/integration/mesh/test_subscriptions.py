"""Subscriptions of a connection: the server holds a tenant's programs to its plan."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client as NatsClient

from tenantry import errors, plans
from tenantry.messages import Plan, Tenant
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind
from tests.integration.mesh.test_credentials import issue, open_once, refused
from tests.mesh import PATIENCE, Mesh, eventually


@pytest.fixture
async def name() -> str:
    """A plan of this test alone."""
    return f"wired_{time.monotonic_ns()}"


async def apply(mesh: Mesh, name: str, subscriptions: int) -> None:
    fields = {"name": name, "rate": 1000.0, "burst": 1000, "subscriptions": subscriptions}
    await mesh.control("apply_plans", plans=[fields])


async def subscribe(plain: NatsClient, creds: Path, count: int) -> None:
    for number in range(count):
        await plain.subscribe(f"_INBOX.{creds.stem}.{number}.{time.monotonic_ns()}")
    await plain._flush_pending(force_flush=True)  # else PING may go before it
    await plain.flush()


async def is_cut(mesh: Mesh, creds: Path, count: int) -> bool:
    """Whether a connection with so many subscriptions ends."""
    plain, closed = await open_once(mesh, creds)
    ends = asyncio.create_task(closed.wait())
    sent = asyncio.create_task(subscribe(plain, creds, count))
    await asyncio.wait({ends, sent}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    error = str(plain.last_error)  # the server tells of it before it answers the flush
    await plain.close()
    await asyncio.wait({ends})
    sent.cancel()
    await asyncio.gather(sent, return_exceptions=True)
    return "maximum subscriptions exceeded" in error


async def test_a_connection_has_as_many_as_the_plan_says(mesh: Mesh, name: str) -> None:
    await apply(mesh, name, 3)
    creds = await mesh.tenant(plan=name)
    assert not await is_cut(mesh, creds, 3)


async def test_a_connection_with_more_is_cut(mesh: Mesh, name: str) -> None:
    await apply(mesh, name, 3)
    creds = await mesh.tenant(plan=name)
    assert await is_cut(mesh, creds, 5)  # one more passes, see accounts.tenant_scope


async def test_each_connection_has_its_own(mesh: Mesh, name: str) -> None:
    await apply(mesh, name, 3)
    creds = await mesh.tenant(plan=name)
    first, closed = await open_once(mesh, creds)
    await subscribe(first, creds, 3)
    assert not await is_cut(mesh, creds, 3)
    assert not closed.is_set()
    await first.close()


async def test_without_a_bound_there_is_none(mesh: Mesh, name: str) -> None:
    await apply(mesh, name, 0)
    assert not await is_cut(mesh, await mesh.tenant(plan=name), 200)


@pytest.mark.parametrize(("before", "after", "cut"), [(3, 20, False), (20, 3, True), (0, 3, True)])
async def test_a_changed_plan_reaches_credentials_that_are_out(
    mesh: Mesh, name: str, before: int, after: int, cut: bool
) -> None:
    await apply(mesh, name, before)
    creds = await mesh.tenant(plan=name)
    await apply(mesh, name, after)
    assert await is_cut(mesh, creds, 10) is cut


async def test_an_open_connection_comes_back_under_the_changed_plan(mesh: Mesh, name: str) -> None:
    await apply(mesh, name, 3)
    creds = await mesh.tenant(plan=name)
    back = asyncio.Event()

    async def on_reconnect() -> None:
        back.set()

    async def on_error(_error: Exception) -> None:
        pass

    plain = await mesh.plain(
        creds, reconnected_cb=on_reconnect, error_cb=on_error, reconnect_time_wait=0.1
    )
    await apply(mesh, name, 20)
    await asyncio.wait_for(back.wait(), PATIENCE)
    await subscribe(plain, creds, 10)
    assert plain.is_connected
    await plain.close()


async def test_a_revocation_elsewhere_cuts_nobody_who_keeps_to_its_plan(
    mesh: Mesh, name: str
) -> None:
    await apply(mesh, name, 3)
    creds = await mesh.tenant(plan=name)
    plain, closed = await open_once(mesh, creds)
    await subscribe(plain, creds, 3)
    other = await mesh.tenant()
    await mesh.control("revoke_credentials", id=other.stem)
    assert await refused(mesh, other)
    await plain.flush()
    assert not closed.is_set()
    await plain.close()


async def test_credentials_keep_the_limit_of_the_plan_that_they_were_issued_on(
    mesh: Mesh, name: str
) -> None:
    wide = f"{name}_wide"
    await apply(mesh, name, 3)
    await apply(mesh, wide, 20)
    creds = await mesh.tenant(plan=name)
    answer = await mesh.control("set_plan", id=creds.stem, plan=wide)
    assert await is_cut(mesh, creds, 10)
    assert not await is_cut(mesh, await issue(mesh, creds.stem), 10)
    assert outdated(answer, name, wide) == 1


async def test_a_tenants_own_limit_holds_for_credentials_issued_from_then_on(
    mesh: Mesh, name: str
) -> None:
    await apply(mesh, name, 3)
    first = await mesh.tenant(plan=name)
    await mesh.control("override", id=first.stem, override={"subscriptions": 20})
    own = await issue(mesh, first.stem)
    assert await is_cut(mesh, first, 10)
    assert not await is_cut(mesh, own, 10)


async def test_when_it_ends_they_have_the_plans(mesh: Mesh, name: str) -> None:
    await apply(mesh, name, 3)
    first = await mesh.tenant(plan=name)
    await mesh.control("override", id=first.stem, override={"subscriptions": 20})
    own = await issue(mesh, first.stem)
    await mesh.control("override", id=first.stem, override=None)
    assert await is_cut(mesh, own, 10)


async def test_tenants_of_one_plan_stay_apart(mesh: Mesh, name: str) -> None:
    await apply(mesh, name, 20)
    one, other = await mesh.tenant(plan=name), await mesh.tenant(plan=name)
    hits: list[Any] = []

    async def on_error(error: Exception) -> None:
        hits.append(str(error))

    plain = await mesh.plain(one, error_cb=on_error)
    await plain.subscribe(f"_INBOX.{one.stem}.own")
    await plain.publish(f"tenant.{one.stem}.notes.texts", b"{}")
    for _ in range(2):
        await plain.flush()
    assert not hits
    await plain.subscribe(f"_INBOX.{other.stem}.>")
    await plain.publish(f"tenant.{other.stem}.notes.texts", b"{}")

    async def twice() -> bool:
        return sum("permissions violation" in each for each in hits) == 2

    await eventually(twice)
    await plain.close()


async def test_a_scope_that_was_never_pushed_lets_nobody_in(mesh: Mesh) -> None:
    creds = await mesh.tenant()
    forged = mesh.folder / f"{creds.stem}-forged" / creds.name
    forged.parent.mkdir()
    pair = KeyPair.generate(Kind.USER)
    jwt = mesh.home.tenant_jwt(pair.public_key, creds.stem, scope="plan:never_made")
    forged.write_text(creds_files.render(jwt, pair))
    assert await refused(mesh, forged)
    assert not await refused(mesh, creds)


async def test_a_limit_below_nothing_is_refused(mesh: Mesh, name: str) -> None:
    with pytest.raises(errors.BadMessage) as caught:
        await apply(mesh, name, -1)
    assert caught.value.path == "$.plans[0].subscriptions"


def outdated(answer: Any, narrow: str, wide: str) -> int:
    """How many credentials the operator is told of."""
    tenant = msgspec.convert(answer["tenant"], Tenant)
    known = {
        each.name: each
        for each in (Plan(name=narrow, subscriptions=3), Plan(name=wide, subscriptions=20))
    }
    return len(plans.outdated(tenant, known, time.time()))
