"""What nats-server refuses is written down, and how much is written down at all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import nats
import nats.errors
import pytest

from tenantry.bus import Bus
from tenantry.bus.scan import scan
from tenantry.operator import claims
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind
from tenantry.runtime import audit
from tenantry.streams import AUDIT
from tenantry_workers.tenants import TenantsWorker
from tests.isolation.cases import Layer, can, cannot
from tests.isolation.trail import SECRET, ask_inside, comes, is_refused, nothing, saved, told
from tests.mesh import Mesh, Program, eventually

# who may not log in


@cannot(23, Layer.SERVER)
async def test_revoked_credentials_are_told(mesh: Mesh, acme: Program, control: Bus) -> None:
    key = creds_files.public_key_of(acme.creds.read_text())
    await mesh.control("revoke_credentials", id=acme.id, public_key=key)
    await is_refused(mesh, acme.creds)
    event = await comes(control, "revoked_credentials", user=key)
    assert (event.tenant, event.host, event.service) == (acme.id, "127.0.0.1", "tenants")
    assert event.connection


async def test_expired_credentials_are_told(mesh: Mesh, acme: Program, control: Bus) -> None:
    key = KeyPair.generate(Kind.USER)
    jwt = mesh.home.tenant_jwt(key.public_key, acme.id, expires=1)
    await is_refused(mesh, saved(mesh, "late", jwt, key))
    assert (await comes(control, "expired_credentials", user=key.public_key)).tenant == acme.id


@cannot(24, Layer.SERVER)
async def test_self_made_credentials_are_told(mesh: Mesh, acme: Program, control: Bus) -> None:
    key, signer = KeyPair.generate(Kind.USER), KeyPair.generate(Kind.ACCOUNT)
    user = claims.User(issuer_account=mesh.home.edge_public_key, tags=(f"tenant:{acme.id}",))
    jwt = claims.encode(user, subject=key.public_key, signer=signer)
    await is_refused(mesh, saved(mesh, "evil", jwt, key))
    event = await comes(control, "forged_credentials", claimed=key.public_key)
    assert (event.tenant, event.user) == ("", "")


async def test_stolen_credentials_without_their_seed_are_told(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    jwt = creds_files.parse(acme.creds.read_text()).jwt
    await is_refused(mesh, saved(mesh, "thief", jwt, KeyPair.generate(Kind.USER)))
    key = creds_files.public_key_of(acme.creds.read_text())
    assert (await comes(control, "refused_credentials", user=key)).tenant == acme.id


@cannot(22, Layer.SERVER)
async def test_no_credentials_are_told(mesh: Mesh, control: Bus) -> None:
    await is_refused(mesh, None, user="root", password=SECRET)
    assert (await comes(control, "no_credentials")).host == "127.0.0.1"


@can(22)
@can(23)
@can(24)
async def test_a_good_login_is_not_told(mesh: Mesh, acme: Program, control: Bus) -> None:
    connection = await mesh.plain(acme.creds)
    await connection.close()
    assert await nothing(control, acme)


# what nats-server does not permit


@cannot(94, Layer.SERVER)
async def test_violations_of_permissions_are_told(own_mesh: Mesh) -> None:
    async with (
        watching(own_mesh) as control,
        own_mesh.program() as acme,
        own_mesh.program() as globex,
    ):
        await acme.plain.publish(f"tenant.{globex.id}.notes.echo", SECRET.encode())
        event = await comes(control, "permission_violation", tenant=acme.id)
        assert event.victim == globex.id
        assert event.user == creds_files.public_key_of(acme.creds.read_text())
        assert event.subject == f"tenant.{globex.id}.notes.echo"
        assert event.host == "127.0.0.1"
        await globex.plain.subscribe("tenant.>")
        await globex.plain.flush()
        assert (await comes(control, "permission_violation", tenant=globex.id)).victim == ""


@can(94)
async def test_what_is_permitted_is_no_violation(own_mesh: Mesh) -> None:
    async with watching(own_mesh) as control, own_mesh.program() as acme:
        await acme.plain.subscribe(f"_INBOX.{acme.id}.more")
        await acme.ask("notes.echo")
        await acme.plain.publish("tenant.nobody.a.b", b"")
        await comes(control, "permission_violation", tenant=acme.id)
        events = await told(control, "permission_violation", tenant=acme.id)
        assert sum(each.count for each in events) == 1


@cannot(95, Layer.CONTROL)
async def test_a_clients_name_writes_no_line_of_the_servers_log(own_mesh: Mesh) -> None:
    async with watching(own_mesh) as control, own_mesh.program() as acme:
        user = KeyPair.generate(Kind.USER).public_key
        line = (
            f'[1] 2026/11/21 08:00:00.0 [ERR] 10.0.0.1:1 - cid:1 - "v2:x" - '
            f'"{own_mesh.home.edge_public_key}/x/jwt:{user}" - Publish Violation - Subject "a.b"'
        )
        evil = await own_mesh.plain(acme.creds, name=f'x"\n{line}\n{line}')
        await evil.publish("tenant.other.a.b", b"")
        await evil.publish(f'tenant.other."{line}'.replace(" ", "_").replace("\n", "_"), b"")
        await evil.flush()
        await comes(control, "permission_violation", tenant=acme.id)
        await evil.close()
        assert not await told(control, "permission_violation", user=user)
        assert not await told(control, "permission_violation", host="10.0.0.1")


@can(95)
async def test_a_clients_name_with_quotes_hides_nothing(own_mesh: Mesh) -> None:
    async with watching(own_mesh) as control, own_mesh.program() as acme:
        odd = await own_mesh.plain(acme.creds, name='"\\" - "')
        await odd.publish("tenant.other.a.b", b"")
        await odd.flush()
        assert await comes(control, "permission_violation", tenant=acme.id)
        await odd.close()


@asynccontextmanager
async def watching(mesh: Mesh) -> Any:
    """The control plane's connection, and one more tenants worker that reads the server's log."""
    path = mesh.backend.home / "nats-server.log"
    if not path.exists():
        pytest.skip("the server's log is not a file here")
    options = mesh.options(server_log=path)
    await asyncio.to_thread(mesh.start, TenantsWorker(options))
    async with await mesh.insider("control") as control:
        yield control


# how much is written


async def test_a_flood_is_a_few_events_that_add_up(
    mesh: Mesh, acme: Program, globex: Program, control: Bus
) -> None:
    flood = 10_000
    fields = {"Tenant-Context": SECRET}
    for number in range(flood):
        await acme.plain.publish(f"tenant.{acme.id}.notes.echo", b"{}", headers=fields)
        if number == flood // 2:
            await globex.ask("notes.echo", {"text": "x"}, headers=fields)
    assert (await comes(control, "forged_header", tenant=globex.id)).count == 1

    async def all_told() -> bool:
        events = await told(control, "forged_header", tenant=acme.id)
        return sum(each.count for each in events) == flood

    await eventually(all_told, within=60.0)
    events = await told(control, "forged_header", tenant=acme.id)
    took = events[-1].last - events[0].first
    assert len(events) <= 2 + took / audit.WINDOW


async def test_nothing_secret_is_written(
    mesh: Mesh, acme: Program, globex: Program, insider: Bus, control: Bus
) -> None:
    token = mesh.minter().mint(acme.id, "business", SECRET)
    await acme.ask("notes.echo", {"text": SECRET}, headers={"Tenant-Context": token})
    await ask_inside(insider, f"request.{globex.id}.notes.echo", token)
    await is_refused(mesh, None, user="x", password=SECRET)
    key = KeyPair.generate(Kind.USER)
    jwt = mesh.home.tenant_jwt(key.public_key, acme.id, expires=1)
    await is_refused(mesh, saved(mesh, "old", jwt, key))
    await comes(control, "forged_header", tenant=acme.id)
    await comes(control, "foreign_context", tenant=acme.id)
    await comes(control, "no_credentials")
    await comes(control, "expired_credentials", tenant=acme.id)
    raw = [message async for message in scan(control, AUDIT, "audit.>")]
    everything = b"".join(each.data + str(each.headers).encode() for each in raw).decode()
    seed = creds_files.parse(acme.creds.read_text()).key.seed
    for secret in (SECRET, token, token.rpartition(".")[2], jwt, seed, key.seed):
        assert secret not in everything


async def test_a_tenants_program_reads_and_writes_no_audit(acme: Program, control: Bus) -> None:
    errors: list[Exception] = []

    async def failed(error: Exception) -> None:
        errors.append(error)

    client = await nats.connect(
        acme.plain.connected_url.geturl() if acme.plain.connected_url else "",
        user_credentials=str(acme.creds),
        inbox_prefix=f"_INBOX.{acme.id}",
        error_cb=failed,
    )
    await client.subscribe("audit.>")
    await client.publish(f"audit.{acme.id}.forged_header", b"{}")
    await client.flush()

    async def both_refused() -> bool:
        return len(errors) == 2

    await eventually(both_refused)
    await client.close()
