"""What is refused to tenants' programs and inside the mesh is written down; mistakes are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from tenantry import Context, Service
from tenantry.bus import Bus
from tenantry.context.token import Minter
from tenantry.operator import creds as creds_files
from tenantry.wire import headers
from tests.isolation.cases import Layer, can, cannot
from tests.isolation.trail import SECRET, ask_inside, comes, nothing, told
from tests.mesh import Mesh, Program, eventually
from tests.services import Note

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


async def test_what_a_stranger_sends_is_counted_also_where_it_gets_no_answer(
    ghost: Program, control: Bus
) -> None:
    for _ in range(50):
        await ghost.plain.publish(f"tenant.{ghost.id}.notes.echo", b"{}")

    async def all_told() -> bool:
        events = await told(control, "unknown_tenant", tenant=ghost.id)
        return sum(each.count for each in events) == 50

    await eventually(all_told)


async def test_a_deleted_tenants_last_messages_are_not_told(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    # Credentials that the tenants worker does not know of, so that it can't revoke them.
    creds = mesh.folder / f"{acme.id}.creds"
    creds.write_text(mesh.home.tenant_creds(acme.id))
    client = await mesh.plain(creds)
    await mesh.control("delete", id=acme.id)
    subject, fields = f"tenant.{acme.id}.notes.echo", {"Tenant-Context": "x"}

    async def unknown() -> bool:
        return b"tenant_unknown" in (await client.request(subject, b"{}", timeout=5)).data

    await eventually(unknown)
    await client.publish(subject, b"{}", headers=fields)
    await comes(control, "forged_header", tenant=acme.id)
    assert not await told(control, "unknown_tenant", tenant=acme.id)
    await client.close()


# what somebody inside tries


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
