"""Refusals that look like attacks are written down, once for each source; mistakes are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
import nats.errors
import pytest
from nats.aio.client import Client as NatsClient

from tenantry import Context, Service
from tenantry.bus import Bus
from tenantry.bus.scan import scan
from tenantry.context.token import Minter
from tenantry.messages import SecurityEvent
from tenantry.operator import claims
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind
from tenantry.runtime import audit
from tenantry.streams import AUDIT
from tenantry.wire import headers
from tenantry_workers.tenants import TenantsWorker
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually
from tests.services import Note

SECRET = "canary-4c1d9e0b7a"


async def written(control: Bus) -> list[SecurityEvent]:
    """All of the stream."""
    decode = msgspec.json.Decoder(SecurityEvent).decode
    return [decode(message.data) async for message in scan(control, AUDIT, "audit.>")]


async def told(control: Bus, kind: str, **fields: Any) -> list[SecurityEvent]:
    """The events of a kind with these fields."""
    return [
        event
        for event in await written(control)
        if event.kind == kind and all(getattr(event, name) == fields[name] for name in fields)
    ]


async def comes(control: Bus, kind: str, **fields: Any) -> SecurityEvent:
    """The first such event, once it is there."""

    async def there() -> bool:
        return bool(await told(control, kind, **fields))

    await eventually(there)
    return (await told(control, kind, **fields))[0]


async def nothing(control: Bus, program: Program) -> bool:
    """Whether nothing is told of a tenant, after something else that it did has been told."""
    await program.ask("notes.echo", {"text": "x"}, headers={"Tenant-Context": "x"})
    await comes(control, "forged_header", tenant=program.id)
    events = [each for each in await written(control) if program.id in (each.tenant, each.victim)]
    return [(each.kind, each.count) for each in events] == [("forged_header", 1)]


# what tenants' programs try


@cannot(25, Layer.ROUTER)
async def test_a_forged_context_is_told(acme: Program, control: Bus) -> None:
    answer = await acme.ask("notes.echo", {"text": SECRET}, headers={"Tenant-Context": SECRET})
    assert not answer.code
    event = await comes(control, "forged_header", tenant=acme.id)
    assert event.subject == f"edge.{acme.id}.notes.echo"
    assert (event.service, event.count) == ("router", 1)


@pytest.mark.parametrize(
    "name", ["tenant-context", "Tenant-Only", "Nats-Request-Info", "Nats-Rollup", "NATS-SCHEDULE"]
)
async def test_a_header_that_steers_the_mesh_is_told(
    acme: Program, control: Bus, name: str
) -> None:
    await acme.ask("notes.echo", {"text": "x"}, headers={name: SECRET})
    assert await comes(control, "forged_header", tenant=acme.id)


async def test_a_forged_header_of_a_refused_message_is_told(acme: Program, control: Bus) -> None:
    answer = await acme.ask("notes.nothing", headers={"Tenant-Context": SECRET})
    assert answer.code == "unknown_action"
    assert await comes(control, "forged_header", tenant=acme.id)


@can(25)
async def test_headers_that_clients_set_are_not_told(acme: Program, control: Bus) -> None:
    await acme.ask(
        "notes.echo",
        {"text": "x"},
        headers={
            "Nats-Msg-Id": "7",
            "Tenant-Timeout": "2",
            "Nats-Expected-Stream": "JOURNAL",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "baggage": "a=b",
            "X-Own": "y",
        },
    )
    assert await nothing(control, acme)


@cannot(19, Layer.ROUTER)
@pytest.mark.parametrize("reply", ["_INBOX.{other}.x", "$JS.API.STREAM.PURGE.JOURNAL", "a.b"])
async def test_a_foreign_reply_is_told(
    acme: Program, globex: Program, control: Bus, reply: str
) -> None:
    reply = reply.format(other=globex.id)
    await acme.plain.publish(f"tenant.{acme.id}.notes.echo", b'{"text": "x"}', reply=reply)
    event = await comes(control, "foreign_reply", tenant=acme.id)
    assert event.victim == (globex.id if globex.id in reply else "")


@can(19)
async def test_a_program_that_forgot_its_inbox_prefix_is_not_told(
    acme: Program, control: Bus
) -> None:
    subject = f"tenant.{acme.id}.notes.echo"
    await acme.plain.publish(subject, b"{}", reply="_INBOX.nOUK2IXF1ArFpd9AwWlsRq.x1")
    assert await nothing(control, acme)


@cannot(2, Layer.ROUTER)
@pytest.mark.parametrize("rest", ["*.echo", "notes.>", "$SYS.echo", "notes.echo.>"])
async def test_a_wildcard_in_a_subject_is_told(acme: Program, control: Bus, rest: str) -> None:
    await acme.plain.publish(f"tenant.{acme.id}.{rest}", b"{}")
    assert (await comes(control, "bad_subject", tenant=acme.id)).subject.endswith(rest)


@can(2)
async def test_the_mistakes_of_every_day_are_not_told(acme: Program, control: Bus) -> None:
    for action in ("notes.nothing", "notes.private", "notes.noted", "notes", "a.b.c", "Notes.Echo"):
        assert (await acme.ask(action)).code in {"unknown_action", "bad_subject"}
    assert (await acme.ask("notes.echo", b"[]")).code == "bad_message"
    assert await nothing(control, acme)


async def test_a_rate_limit_is_not_told(mesh: Mesh, control: Bus) -> None:
    plan = await mesh.plan("crawl", rate=1.0, burst=3)
    async with mesh.program(plan=plan) as program:

        async def limited() -> bool:
            return (await program.ask("notes.echo", {"text": "x"})).code == "rate_limited"

        await eventually(limited)
        assert await nothing(control, program)


@cannot(90, Layer.ROUTER)
async def test_credentials_of_no_tenant_are_told(ghost: Program, control: Bus) -> None:
    assert (await ghost.ask("notes.echo", {"text": "x"})).code == "tenant_unknown"
    assert (await comes(control, "unknown_tenant", tenant=ghost.id)).count == 1


@can(90)
async def test_a_tenant_that_the_router_has_just_not_heard_of_is_not_told(
    mesh: Mesh, control: Bus
) -> None:
    async with mesh.ghost() as program:
        await program.ask("notes.echo", {"text": "x"})
        key = creds_files.public_key_of(program.creds.read_text())
        await mesh.control("create", id=program.id, plan="business", public_key=key)

        async def known() -> bool:
            return not (await program.ask("notes.echo", {"text": "x"})).code

        await eventually(known)
        events = await told(control, "unknown_tenant", tenant=program.id)
        assert sum(each.count for each in events) <= 1  # where creating took longer than a moment


# what somebody inside tries


async def ask_inside(insider: Bus, subject: str, token: str | None) -> str:
    fields = {} if token is None else {headers.CONTEXT: token}
    answer = await insider.call(subject, b'{"text": "x"}', headers=fields)
    return (answer.headers or {}).get("Nats-Service-Error", "")


def forged(mesh: Mesh, tenant: str) -> str:
    return Minter(mesh.home.context_keys()[-1][0], b"\1" * 32).mint(tenant, "business", "x")


def of_no_key(mesh: Mesh, tenant: str) -> str:
    return Minter("k0", b"\1" * 32).mint(tenant, "business", "x")


def expired(mesh: Mesh, tenant: str) -> str:
    return mesh.minter().mint(tenant, "business", "x", now=1.0)


def missing(mesh: Mesh, tenant: str) -> None:
    return None


@cannot(91, Layer.CONTEXT)
@pytest.mark.parametrize("make", [forged, of_no_key, expired, missing])
async def test_a_bad_context_inside_the_mesh_is_told(
    mesh: Mesh,
    acme: Program,
    insider: Bus,
    control: Bus,
    make: Callable[[Mesh, str], str | None],
) -> None:
    token = make(mesh, acme.id)
    assert await ask_inside(insider, f"request.{acme.id}.notes.echo", token)
    event = await comes(control, "bad_context", victim=acme.id)
    assert (event.service, event.subject) == ("notes", f"request.{acme.id}.notes.echo")
    assert event.tenant == ""


@cannot(27, Layer.CONTEXT)
async def test_one_tenants_context_on_anothers_subject_is_told(
    mesh: Mesh, acme: Program, globex: Program, insider: Bus, control: Bus
) -> None:
    token = mesh.minter().mint(acme.id, "business", "x")
    assert await ask_inside(insider, f"request.{globex.id}.notes.echo", token)
    event = await comes(control, "foreign_context", tenant=acme.id)
    assert event.victim == globex.id


@can(91)
@can(27)
async def test_a_good_context_is_not_told(
    mesh: Mesh, acme: Program, insider: Bus, control: Bus
) -> None:
    token = mesh.minter().mint(acme.id, "business", "x")
    assert not await ask_inside(insider, f"request.{acme.id}.notes.echo", token)
    assert await nothing(control, acme)


@cannot(92, Layer.CONTEXT)
async def test_a_bad_context_in_the_journal_is_told(
    mesh: Mesh, acme: Program, insider: Bus, control: Bus
) -> None:
    subject = f"tenant.{acme.id}.notes.remember"
    await insider.call(subject, b'{"text": "x"}', headers={headers.CONTEXT: forged(mesh, acme.id)})
    assert (await comes(control, "bad_context", victim=acme.id)).subject == subject
    assert await acme.texts() == []


@can(92)
async def test_a_context_that_expired_in_the_journal_is_renewed_and_not_told(
    mesh: Mesh, acme: Program, insider: Bus, control: Bus
) -> None:
    token = mesh.minter(lifetime=1.0).mint(acme.id, "business", "x")
    subject = f"tenant.{acme.id}.notes.stumble"
    await insider.call(subject, b'{"text": "x"}', headers={headers.CONTEXT: token})

    async def handled() -> bool:
        return await acme.texts() == ["x"]

    await eventually(handled)
    assert await nothing(control, acme)


@cannot(93, Layer.ROUTER)
async def test_a_renewal_of_a_context_that_the_journal_has_not_is_told(
    mesh: Mesh, acme: Program, globex: Program, insider: Bus, control: Bus
) -> None:
    stored = await globex.plain.request(f"tenant.{globex.id}.notes.remember", b'{"text": "x"}')
    seq = msgspec.json.decode(stored.data)["seq"]
    ask = {"token": mesh.minter().mint(acme.id, "business", "x"), "seq": seq}
    answer = await insider.call("platform.router.renew_context", msgspec.json.encode(ask))
    assert (answer.headers or {})["Nats-Service-Error-Code"] == "401"
    assert await comes(control, "bad_renewal", victim=globex.id)


@can(93)
async def test_a_renewal_of_what_is_gone_from_the_journal_is_not_told(
    mesh: Mesh, acme: Program, insider: Bus, control: Bus
) -> None:
    ask = {"token": mesh.minter().mint(acme.id, "business", "x"), "seq": 10**12}
    answer = await insider.call("platform.router.renew_context", msgspec.json.encode(ask))
    assert (answer.headers or {})["Nats-Service-Error-Code"] == "401"
    assert await nothing(control, acme)


@cannot(46, Layer.RUNTIME)
async def test_a_kept_context_of_another_tenant_is_told(
    mesh: Mesh, acme: Program, globex: Program, control: Bus
) -> None:
    async with keeper(mesh) as service:
        assert not (await acme.ask(f"{service}.keep")).code
        assert (await globex.ask(f"{service}.use")).code == "handler_failed"
        event = await comes(control, "crossed_context", tenant=globex.id)
        assert (event.victim, event.service) == (acme.id, service)


@can(46)
async def test_a_kept_context_of_the_same_tenant_fails_and_is_not_told(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    async with keeper(mesh) as service:
        assert not (await acme.ask(f"{service}.keep")).code
        assert (await acme.ask(f"{service}.use")).code == "handler_failed"
        assert await nothing(control, acme)


_keepers = iter(range(1000))


@asynccontextmanager
async def keeper(mesh: Mesh) -> Any:
    """A service that keeps a context and sends with it later."""
    service = Service(f"keeper{next(_keepers)}", version="1.0.0")
    kept: list[Context] = []

    @service.request("keep", public=True)
    async def keep(ctx: Context) -> None:
        kept.append(ctx)

    @service.request("use", public=True)
    async def use(ctx: Context) -> None:
        kept[-1].send("notes.remember", Note("x"))

    running = await asyncio.to_thread(mesh.start, mesh.worker(service))
    mesh.running.remove(running)
    try:
        async with mesh.program() as program:

            async def serves() -> bool:
                return not (await program.ask(f"{service.name}.keep")).code

            await eventually(serves)
        yield service.name
    finally:
        await running.stop()


# who may not log in


async def is_refused(mesh: Mesh, creds: Path | None, **options: Any) -> None:
    if creds is not None:
        options["user_credentials"] = str(creds)
    client = NatsClient()
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await client.connect(mesh.url, allow_reconnect=False, **options)
    await client.close()
    if client._transport is not None:  # nats-py leaves it open
        client._transport.close()
    await asyncio.sleep(0)


def saved(mesh: Mesh, name: str, jwt: str, key: KeyPair) -> Path:
    path = mesh.folder / f"{name}.creds"
    path.write_text(creds_files.render(jwt, key))
    return path


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
