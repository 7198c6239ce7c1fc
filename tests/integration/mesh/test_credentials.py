"""Credentials of a tenant's programs: issued, revoked, expired, on connections that are open."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client as NatsClient

from tenantry import errors
from tenantry.bus import Bucket, Bus
from tenantry.messages import Credential, Tenant
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind
from tests.mesh import PATIENCE, Mesh, Program, eventually

NOTE = b'{"text": "x"}'
_LETTERS = str.maketrans("0123456789", "ABCDEFGHIJ")
"""The digits that a public key must not have."""


async def issue(mesh: Mesh, tenant: str, **options: Any) -> Path:
    """Further credentials of a tenant."""
    key = KeyPair.generate(Kind.USER)
    answer = await mesh.control(
        "issue_credentials", id=tenant, public_key=key.public_key, **options
    )
    folder = mesh.folder / key.public_key
    folder.mkdir()
    path = folder / f"{tenant}.creds"
    path.write_text(creds_files.render(answer["jwt"], key))
    return path


def public_key(creds: Path) -> str:
    return creds_files.public_key_of(creds.read_text())


async def open_once(mesh: Mesh, creds: Path) -> tuple[NatsClient, asyncio.Event]:
    """A connection that does not come back, and the event of its end."""
    closed = asyncio.Event()

    async def on_closed() -> None:
        closed.set()

    async def on_error(_error: Exception) -> None:
        pass

    plain = await mesh.plain(creds, allow_reconnect=False, closed_cb=on_closed, error_cb=on_error)
    return plain, closed


async def refused(mesh: Mesh, creds: Path) -> bool:
    """Whether the server turns these credentials away."""
    client = NatsClient()

    async def on_error(_error: Exception) -> None:
        pass

    with suppress(nats.errors.Error):
        await client.connect(
            mesh.url, user_credentials=str(creds), allow_reconnect=False, error_cb=on_error
        )
    let_in = client.is_connected
    await client.close()
    # After a refused login nats-py leaves its socket open.
    if client._transport is not None:
        client._transport.close()
    await asyncio.sleep(0)
    return not let_in


async def serves(tenant: str, plain: NatsClient) -> bool:
    answer = await plain.request(f"tenant.{tenant}.notes.echo", NOTE, timeout=PATIENCE)
    return not answer.headers


async def test_further_credentials_work_like_the_first(mesh: Mesh, acme: Program) -> None:
    plain, _ = await open_once(mesh, await issue(mesh, acme.id))
    assert await serves(acme.id, plain)
    await plain.close()


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
async def test_a_credentials_file_may_have_any_line_ends(
    mesh: Mesh, acme: Program, end: str
) -> None:
    creds = await issue(mesh, acme.id)
    creds.write_bytes(creds.read_text().replace("\n", end).encode())
    async with await mesh.client(creds) as client:
        assert (await client.request("notes.echo", {"text": "x"}))["text"] == "x"


async def test_credentials_are_in_the_record_under_their_name(mesh: Mesh, acme: Program) -> None:
    creds = await issue(mesh, acme.id, name="backup")
    credentials = (await mesh.control("show", id=acme.id))["credentials"]
    assert [c["name"] for c in credentials] == ["first", "backup"]
    assert [c["public_key"] for c in credentials] == [public_key(acme.creds), public_key(creds)]


async def test_a_revoked_credential_cuts_its_connection(mesh: Mesh, acme: Program) -> None:
    creds = await issue(mesh, acme.id)
    _, closed = await open_once(mesh, creds)
    await mesh.control("revoke_credentials", id=acme.id, public_key=public_key(creds))
    await asyncio.wait_for(closed.wait(), PATIENCE)


async def test_a_revoked_credential_does_not_come_in_again(mesh: Mesh, acme: Program) -> None:
    creds = await issue(mesh, acme.id)
    assert not await refused(mesh, creds)
    await mesh.control("revoke_credentials", id=acme.id, public_key=public_key(creds))
    assert await refused(mesh, creds)


async def test_the_other_credentials_of_the_tenant_go_on(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    creds = await issue(mesh, acme.id)
    _, closed = await open_once(mesh, creds)
    await mesh.control("revoke_credentials", id=acme.id, public_key=public_key(creds))
    await asyncio.wait_for(closed.wait(), PATIENCE)
    assert acme.plain.is_connected
    assert await serves(acme.id, acme.plain)
    assert await serves(globex.id, globex.plain)


async def test_without_a_key_all_are_revoked(mesh: Mesh, acme: Program) -> None:
    creds = [await issue(mesh, acme.id) for _ in range(2)]
    opened = [await open_once(mesh, path) for path in creds]
    await mesh.control("revoke_credentials", id=acme.id)
    for _, closed in opened:
        await asyncio.wait_for(closed.wait(), PATIENCE)
    for path in (*creds, acme.creds):
        assert await refused(mesh, path)


async def test_after_a_revocation_new_credentials_are_good(mesh: Mesh, acme: Program) -> None:
    await mesh.control("revoke_credentials", id=acme.id)
    plain, _ = await open_once(mesh, await issue(mesh, acme.id))
    assert await serves(acme.id, plain)
    await plain.close()


async def test_our_client_knows_that_it_was_revoked(mesh: Mesh, acme: Program) -> None:
    async with await mesh.client(await issue(mesh, acme.id)) as client:
        await client.request("notes.echo", {"text": "x"})
        await mesh.control("revoke_credentials", id=acme.id)
        await eventually(lambda: _is_not_allowed(client))


async def test_expired_credentials_cut_their_connection(mesh: Mesh, acme: Program) -> None:
    creds = await issue(mesh, acme.id, expires=time.time() + 2)
    plain, closed = await open_once(mesh, creds)
    assert await serves(acme.id, plain)
    await asyncio.wait_for(closed.wait(), PATIENCE)
    # Times in a JWT are whole seconds, and the server counts the last one in.
    await eventually(lambda: refused(mesh, creds))


async def test_credentials_cannot_expire_in_the_past(mesh: Mesh, acme: Program) -> None:
    with pytest.raises(errors.Conflict):
        await issue(mesh, acme.id, expires=time.time() - 1)


async def test_what_is_no_key_gets_no_credentials(mesh: Mesh, acme: Program) -> None:
    with pytest.raises(errors.BadMessage) as caught:
        await mesh.control("issue_credentials", id=acme.id, public_key="U" + "A" * 55)
    assert caught.value.path == "$.public_key"
    assert len((await mesh.control("show", id=acme.id))["credentials"]) == 1


async def test_a_key_has_credentials_once(mesh: Mesh, acme: Program) -> None:
    with pytest.raises(errors.Conflict):
        await mesh.control(
            "issue_credentials", id=acme.id, public_key=public_key(acme.creds), name="again"
        )


async def _is_not_allowed(client: Any) -> bool:
    try:
        await client.request("notes.echo", {"text": "x"}, timeout=1)
    except errors.NotAllowed:
        return True
    except errors.Rejection:
        return False
    return False


async def test_after_20_000_revocations_one_more_cuts_its_connection(
    mesh: Mesh, control: Bus
) -> None:
    """So many do not fit into the one message that the account is pushed with."""
    creds = await mesh.tenant()
    others = [f"left{number}" for number in range(200)]
    await asyncio.gather(*(leave(control, mesh, name, 100) for name in others))
    extra = await issue(mesh, creds.stem)
    _, closed = await open_once(mesh, extra)
    await mesh.control("revoke_credentials", id=creds.stem, public_key=public_key(extra))
    await asyncio.wait_for(closed.wait(), PATIENCE)
    await asyncio.gather(*(Bucket(control, "tenants", Tenant).delete(name) for name in others))
    assert not await refused(mesh, creds)


async def leave(control: Bus, mesh: Mesh, name: str, count: int) -> None:
    """Store the record of a deleted tenant that had so many credentials."""
    credentials = tuple(
        Credential(
            public_key=f"U{name:A>40}{number:015}".upper().translate(_LETTERS),
            issued=1.0,
            revoked=2.0 + number,
            scope="plan:business#0",
            signer=mesh.home.tenant_key,
        )
        for number in range(count)
    )
    common = {"plan": "business", "created": 1.0, "updated": 2.0, "state": "deleted"}
    record = Tenant(id=name, change="deleted", credentials=credentials, **common)
    await Bucket(control, "tenants", Tenant).put(name, record)
