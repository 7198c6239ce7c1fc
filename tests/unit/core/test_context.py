"""A context in a handler: what it stages, under which ids, and when it ends."""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

import tenantry
from tenantry.bus import Bus
from tenantry.context.claims import Claims
from tenantry.context.context import Context, ContextClosed
from tenantry.context.event import Event
from tenantry.context.state import State
from tenantry.errors import BadMessage, BadSubject, DeclarationError
from tenantry.runtime.audit import Audit
from tenantry.runtime.mesh import WorkerMesh
from tenantry.runtime.outbox import Renewer
from tenantry.subjects import Address
from tenantry.wire.trace import Trace

TRACE = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


class Placed(Struct, frozen=True):
    sku: str


class Shipped(Struct, frozen=True):
    sku: str


PLACED = Event("orders", "placed", Placed)
BUS = Bus(["nats://127.0.0.1:1"])
"""Never connected: nothing here goes over it."""


def context(
    tenant: str = "acme",
    service: str = "orders",
    action: str = "place",
    *,
    message_id: str = "m1",
    **more: Any,
) -> Context:
    claims = Claims(
        tenant=tenant, plan="standard", principal="edge", roles=("r",), issued=0.0, expires=300.0
    )
    mesh = WorkerMesh(BUS, Renewer(BUS), Audit(BUS, service, "1"))
    return Context(
        mesh,
        claims,
        "token",
        Address(tenant, service, action),
        TRACE,
        message_id=message_id,
        **more,
    )


def staged_ids(ctx: Context, count: int = 3) -> list[str]:
    for index in range(count):
        ctx.send("billing.charge", {"n": index})
    return [staged.msg_id for staged in ctx.close()]


# whose it is


def test_it_tells_what_the_claims_say() -> None:
    ctx = context()
    assert (ctx.tenant, ctx.plan, ctx.principal, ctx.roles) == ("acme", "standard", "edge", ("r",))


def test_the_request_id_is_the_trace_id() -> None:
    assert context().request_id == TRACE.trace_id


def test_where_nobody_waits_no_time_remains() -> None:
    assert context().remaining is None


def test_the_time_that_remains_is_that_to_the_deadline() -> None:
    remaining = context(deadline=time.time() + 5).remaining
    assert remaining == pytest.approx(5, abs=0.5)


def test_outside_a_handler_there_is_no_context() -> None:
    def look() -> None:
        with pytest.raises(LookupError):
            tenantry.current()

    contextvars.Context().run(look)


async def test_the_context_of_a_task_is_seen_in_its_own_tasks_only() -> None:
    async def handle(tenant: str) -> str:
        context(tenant).enter()
        await asyncio.sleep(0)
        inner = asyncio.create_task(asyncio.to_thread(lambda: tenantry.current().tenant))
        return await inner

    tenants = [f"t{number}" for number in range(20)]
    tasks = [asyncio.create_task(handle(tenant)) for tenant in tenants]
    assert await asyncio.gather(*tasks) == tenants


def test_what_it_logs_names_tenant_action_and_trace() -> None:
    with structlog.testing.capture_logs() as told:
        context("globex").log.info("placed", count=2)
    assert told == [
        {
            "event": "placed",
            "log_level": "info",
            "count": 2,
            "tenant": "globex",
            "action": "orders.place",
            "trace_id": TRACE.trace_id,
        }
    ]


# what it stages


def test_an_event_goes_to_the_contexts_own_tenant_and_service() -> None:
    ctx = context("globex")
    ctx.emit(PLACED, Placed("a"))
    (staged,) = ctx.close()
    assert (staged.subject, staged.body) == ("tenant.globex.orders.placed", b'{"sku":"a"}')


def test_a_command_goes_to_the_contexts_own_tenant() -> None:
    ctx = context("globex")
    ctx.send("billing.charge", {"n": 1})
    (staged,) = ctx.close()
    assert (staged.subject, staged.body) == ("tenant.globex.billing.charge", b'{"n":1}')


def test_what_is_staged_keeps_its_order() -> None:
    ctx = context()
    ctx.send("a.b", 1)
    ctx.emit(PLACED, Placed("2"))
    ctx.send("a.b", 3)
    assert [staged.body for staged in ctx.close()] == [b"1", b'{"sku":"2"}', b"3"]


def test_what_is_staged_is_what_it_was_then() -> None:
    ctx, body = context(), {"n": 1}
    ctx.send("a.b", body)
    body["n"] = 2
    assert ctx.close()[0].body == b'{"n":1}'


@pytest.mark.parametrize(
    "action", ["charge", "globex.billing.charge", "billing.*", ">", "billing.charge\r\n", ""]
)
def test_a_command_names_a_service_and_an_action_and_no_tenant(action: str) -> None:
    with pytest.raises(BadSubject):
        context().send(action, {})


def test_an_event_of_another_service_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"orders can't emit billing\.paid"):
        context().emit(Event("billing", "paid", Placed), Placed("a"))


@pytest.mark.parametrize("event", ["orders.placed", None, Placed])
def test_what_is_no_event_is_not_emitted(event: Any) -> None:
    with pytest.raises(DeclarationError, match="it is no event"):
        context().emit(event, Placed("a"))


@pytest.mark.parametrize("command", [PLACED, None, 5])
def test_what_is_no_name_is_not_sent(command: Any) -> None:
    with pytest.raises(DeclarationError, match="is not the name of a command"):
        context().send(command, {})


async def test_a_request_waits_for_seconds() -> None:
    with pytest.raises(TypeError, match="str"):
        await context().request("orders.place", {}, type=int, timeout="5s")  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [Shipped("a"), {"sku": "a"}, None, "a"])
def test_a_body_of_another_type_is_refused(body: Any) -> None:
    ctx = context()
    with pytest.raises(TypeError, match="placed takes"):
        ctx.emit(PLACED, body)
    assert ctx.close() == ()


def test_an_event_may_be_of_a_plain_type() -> None:
    ctx = context()
    ctx.emit(Event("orders", "counted", dict[str, int]), {"a": 1})
    assert ctx.close()[0].body == b'{"a":1}'


def test_an_event_may_be_of_one_of_several_types() -> None:
    ctx = context()
    ctx.emit(Event("orders", "moved", Placed | Shipped), Shipped("a"))  # type: ignore[arg-type]
    assert len(ctx.close()) == 1


# ids


def test_a_redelivery_draws_the_same_ids() -> None:
    assert staged_ids(context(attempt=1)) == staged_ids(context(attempt=7))


def test_ids_depend_on_nothing_but_cause_and_position() -> None:
    other = context(seq=9, deadline=1.0, headers={"a": "b"}, resources=object())
    assert staged_ids(context()) == staged_ids(other)


@pytest.mark.parametrize(
    "other",
    [
        context("globex"),
        context(service="orders2"),
        context(action="cancel"),
        context(message_id="m2"),
    ],
)
def test_another_tenant_service_action_or_cause_draws_other_ids(other: Context) -> None:
    assert not set(staged_ids(context())) & set(staged_ids(other))


causes = st.tuples(
    st.sampled_from(["acme", "globex"]),
    st.sampled_from(["a", "ab", "a_b"]),
    st.sampled_from(["b", "bc", "c"]),
    st.sampled_from(["m", "m\0a", "m.a", "m\0a.b\x000", "0"]),
)


@given(st.lists(causes, unique=True, max_size=10))
def test_no_two_ids_are_the_same(drawn: list[tuple[str, str, str, str]]) -> None:
    ids = [
        drawn_id
        for tenant, service, action, cause in drawn
        for drawn_id in staged_ids(context(tenant, service, action, message_id=cause))
    ]
    assert len(set(ids)) == len(ids)


def test_ids_of_two_tenants_are_apart_by_their_prefix() -> None:
    assert all(name.startswith("globex.m.") for name in staged_ids(context("globex")))


def test_an_id_for_a_thing_is_the_same_on_every_delivery() -> None:
    assert context(attempt=1).id_for("order") == context(attempt=7).id_for("order")


def test_an_id_for_a_thing_is_32_hex_digits() -> None:
    assert len(bytes.fromhex(context().id_for("order"))) == 16


@given(st.lists(st.tuples(causes, st.sampled_from(["", "a", "b", "0", "1", "a\0b"])), unique=True))
def test_ids_for_different_things_differ(
    drawn: list[tuple[tuple[str, str, str, str], str]],
) -> None:
    ids = [
        context(tenant, service, action, message_id=cause).id_for(name)
        for (tenant, service, action, cause), name in drawn
    ]
    assert len(set(ids)) == len(ids)


def test_an_id_for_a_thing_is_not_that_of_a_message() -> None:
    assert not {context().id_for(name) for name in "012"} & {
        staged.rpartition(".")[2] for staged in staged_ids(context())
    }


# its end


def uses() -> list[Any]:
    return [
        lambda ctx: ctx.emit(PLACED, Placed("a")),
        lambda ctx: ctx.send("billing.charge", {}),
        lambda ctx: ctx.state,
    ]


@pytest.mark.parametrize("use", uses())
def test_after_its_message_it_does_nothing_more(use: Any) -> None:
    ctx = context()
    use(ctx)
    ctx.close()
    with pytest.raises(ContextClosed):
        use(ctx)


async def test_after_its_message_it_asks_nobody() -> None:
    ctx = context()
    ctx.close()
    with pytest.raises(ContextClosed):
        await ctx.request("orders.place", {}, type=Placed)


def test_what_was_staged_is_handed_out_once() -> None:
    ctx = context()
    ctx.send("a.b", 1)
    assert len(ctx.close()) == 1
    assert ctx.close() == ()


# state


@pytest.mark.parametrize("name", ["a", "A-1", "a.b", "a_b=c", "0", "x" * 200])
def test_a_state_is_kept_under_tenant_and_service(name: str) -> None:
    assert State(BUS, "acme", "orders")._key(name) == f"acme.orders.{name}"


@pytest.mark.parametrize(
    "name",
    ["", ".", "a.", ".a", "a..b", "*", ">", "a.*", "a.>", "a b", "a\n", "a\0", "a/b", "$KV"],
)
async def test_what_can_name_no_state_is_refused(name: str) -> None:
    with pytest.raises(BadMessage, match="can't name a state"):
        await State(BUS, "acme", "orders").get(name, int)


@pytest.mark.parametrize("name", ["x" * 201, "\u00e9", "\u0430"])
async def test_a_name_of_a_state_is_short_and_ascii(name: str) -> None:
    with pytest.raises(BadMessage, match="can't name a state"):
        await State(BUS, "acme", "orders").put(name, 1)


async def test_a_name_that_a_state_refuses_may_be_the_askers_fault() -> None:
    with pytest.raises(BadMessage) as caught:
        await State(BUS, "acme", "orders").delete("*")
    assert not caught.value.inside


@given(st.text("ab.*>-_= \n\0\u00e9", max_size=8))
def test_no_name_leads_out_of_its_own_place(name: str) -> None:
    try:
        key = State(BUS, "acme", "orders")._key(name)
    except BadMessage:
        return
    assert key == f"acme.orders.{name}"
    assert all(key.split("."))
    assert not set(key) & set("*> \n\0")
