"""A message that waits in the journal longer than its context lives is finished all the same."""

from __future__ import annotations

import asyncio
import time

import pytest

from tenantry import Context, Service, errors
from tenantry.bus import Bus, store
from tenantry.context.token import LIFETIME, SKEW
from tenantry.messages import RenewContext, RenewedContext
from tenantry.wire import codec, problem
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import Memory, Note, Texts


async def store_fresh(
    mesh: Mesh, bus: Bus, tenant: str, action: str, *, left: float = LIFETIME
) -> tuple[str, int]:
    """Store a command whose context has so many seconds to live; returns context and sequence."""
    born = time.time() - LIFETIME - SKEW + left
    token = mesh.minter().mint(tenant, "business", "edge", now=born)
    fields = {"Tenant-Context": token}
    ack = await store(bus, f"tenant.{tenant}.{action}", b'{"text": "late"}', headers=fields)
    return token, ack.seq


async def store_late(mesh: Mesh, bus: Bus, tenant: str, action: str) -> tuple[str, int]:
    """Store a command whose context is just about to go stale; returns when it is stale."""
    stored = await store_fresh(mesh, bus, tenant, action, left=0.8)
    await asyncio.sleep(1.0)
    return stored


async def test_followers_accept_what_a_late_command_emits(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    follower = Service("late_reader")

    @follower.on("late_keeper.kept")
    async def follow(ctx: Context, event: Note) -> None:
        await ctx.state.put("seen", Texts((event.text,)))

    @follower.request("texts", public=True)
    async def texts(ctx: Context) -> Texts:
        entry = await ctx.state.get("seen", Texts)
        return entry.value if entry else Texts()

    await mesh.start(mesh.worker(Memory("late_keeper").service)).stop()
    token, _ = await store_late(mesh, control, acme.id, "late_keeper.keep")
    running = mesh.start(mesh.worker(Memory("late_keeper").service, follower))
    await eventually(lambda: _texts(acme, "late_keeper", ["late"]))
    await eventually(lambda: _texts(acme, "late_reader", ["late"]))
    (event,) = await journal(control, acme.id, "late_keeper.kept")
    assert event.headers["Tenant-Context"] != token
    await running.stop()


async def test_other_services_answer_what_a_late_command_asks(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    def asker() -> Service:
        service = Service("late_asker")

        @service.command("ask", public=True)
        async def ask(ctx: Context, note: Note) -> None:
            answer = await ctx.request("notes.private", note, type=Note)
            await ctx.state.put("answer", Texts((answer.text,)))

        @service.request("texts", public=True)
        async def texts(ctx: Context) -> Texts:
            entry = await ctx.state.get("answer", Texts)
            return entry.value if entry else Texts()

        return service

    await mesh.start(mesh.worker(asker())).stop()
    await store_late(mesh, control, acme.id, "late_asker.ask")
    running = mesh.start(mesh.worker(asker()))
    await eventually(lambda: _texts(acme, "late_asker", [f"{acme.id}:late"]))
    await running.stop()


async def test_a_context_that_stands_in_the_journal_is_renewed(
    mesh: Mesh, acme: Program, insider: Bus
) -> None:
    token, seq = await store_fresh(mesh, insider, acme.id, "nobody.nothing")
    renewed = await renew(insider, token, seq)
    fields = {"Tenant-Context": renewed}
    answer = await insider.call(f"request.{acme.id}.notes.echo", b'{"text": "x"}', headers=fields)
    assert problem.load(answer.headers, answer.data) is None


async def test_a_renewed_context_is_of_the_same_principal(
    mesh: Mesh, acme: Program, insider: Bus
) -> None:
    token, seq = await store_fresh(mesh, insider, acme.id, "nobody.nothing")
    fields = {"Tenant-Context": await renew(insider, token, seq)}
    answer = await insider.call(f"request.{acme.id}.notes.seen", b"{}", headers=fields)
    seen = codec.Decoder(dict)(answer.data)
    assert (seen["tenant"], seen["principal"]) == (acme.id, "edge")


async def test_a_context_at_another_place_of_the_journal_is_not_renewed(
    mesh: Mesh, acme: Program, globex: Program, insider: Bus
) -> None:
    token, seq = await store_fresh(mesh, insider, acme.id, "nobody.nothing")
    other = (await globex.client.publish("notes.remember", {"text": "x"})).seq
    for number in (other, seq + 1_000_000):
        with pytest.raises(errors.BadContext):
            await renew(insider, token, number)


async def test_a_context_is_not_renewed_for_another_message_of_its_tenant(
    mesh: Mesh, acme: Program, insider: Bus
) -> None:
    token, _ = await store_fresh(mesh, insider, acme.id, "nobody.nothing", left=200.0)
    _, seq = await store_fresh(mesh, insider, acme.id, "nobody.nothing")
    with pytest.raises(errors.BadContext):
        await renew(insider, token, seq)


async def test_a_context_that_was_stale_when_it_was_stored_is_not_renewed(
    mesh: Mesh, acme: Program, insider: Bus
) -> None:
    long_ago = time.time() - LIFETIME - SKEW - 60
    token = mesh.minter().mint(acme.id, "business", "edge", now=long_ago)
    fields = {"Tenant-Context": token}
    ack = await store(insider, f"tenant.{acme.id}.nobody.nothing", b"{}", headers=fields)
    with pytest.raises(errors.BadContext):
        await renew(insider, token, ack.seq)


async def test_a_context_on_the_subject_of_another_tenant_is_not_renewed(
    mesh: Mesh, acme: Program, globex: Program, insider: Bus
) -> None:
    token = mesh.minter().mint(acme.id, "business", "edge")
    fields = {"Tenant-Context": token}
    ack = await store(insider, f"tenant.{globex.id}.nobody.nothing", b"{}", headers=fields)
    with pytest.raises(errors.BadContext):
        await renew(insider, token, ack.seq)


async def test_the_context_of_a_deleted_tenant_is_not_renewed(mesh: Mesh, insider: Bus) -> None:
    await mesh.control("create", id="renewed-no-more")
    token, seq = await store_fresh(mesh, insider, "renewed-no-more", "nobody.nothing")
    await renew(insider, token, seq)
    await mesh.control("delete", id="renewed-no-more")
    await eventually(lambda: _is_unknown(insider, token, seq))


async def renew(bus: Bus, token: str, seq: int) -> str:
    ask = RenewContext(token=token, seq=seq)
    answer = await bus.call("platform.router.renew_context", codec.encode(ask))
    if rejection := problem.load(answer.headers, answer.data):
        raise rejection
    return codec.Decoder(RenewedContext)(answer.data).token


async def _is_unknown(bus: Bus, token: str, seq: int) -> bool:
    try:
        await renew(bus, token, seq)
    except errors.TenantUnknown:
        return True
    return False


async def _texts(program: Program, service: str, texts: list[str]) -> bool:
    try:
        return await program.texts(service) == texts
    except (errors.Unavailable, errors.UnknownAction):
        return False
