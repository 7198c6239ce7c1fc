"""The way of a message between EDGE and MESH, with the smallest router there can be."""

from __future__ import annotations

import pytest
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js.api import StreamConfig

from tests.integration.operator.clients import PATIENCE, Client, Mesh


@pytest.fixture
async def router(mesh: Mesh) -> Client:
    return await mesh.role("router")


@pytest.fixture
async def acme(mesh: Mesh) -> Client:
    return await mesh.tenant("acme")


@pytest.mark.parametrize(
    "rest", ["acme.orders.place", "acme.orders", "acme.orders.place.more.tokens", "acme.x"]
)
async def test_the_router_sees_the_edge_under_its_own_root(
    router: Client, acme: Client, rest: str
) -> None:
    edge = await router.subscribe("edge.>")
    await acme.nats.publish(f"tenant.{rest}", b"x")
    assert (await edge.next_msg(PATIENCE)).subject == f"edge.{rest}"


async def test_the_reply_subject_passes_unchanged(router: Client, acme: Client) -> None:
    edge = await router.subscribe("edge.>")
    await acme.nats.publish("tenant.acme.orders.place", b"x", reply="_INBOX.acme.here")
    assert (await edge.next_msg(PATIENCE)).reply == "_INBOX.acme.here"


async def test_headers_and_body_pass_unchanged(router: Client, acme: Client) -> None:
    edge = await router.subscribe("edge.>")
    await acme.nats.publish("tenant.acme.orders.place", b"\x00\xff", headers={"A-b": "c"})
    message = await edge.next_msg(PATIENCE)
    assert (message.data, message.headers) == (b"\x00\xff", {"A-b": "c"})


async def test_two_routers_share_the_edge(mesh: Mesh, acme: Client) -> None:
    first, second = [
        await (await mesh.role("router")).subscribe("edge.>", queue="router") for _ in range(2)
    ]
    for _ in range(40):
        await acme.nats.publish("tenant.acme.orders.place", b"x")
    await acme.settle()
    for client in (first, second):
        assert (await client.next_msg(PATIENCE)).subject == "edge.acme.orders.place"
    assert first.pending_msgs + second.pending_msgs == 38


async def test_without_a_router_the_asker_knows_at_once(acme: Client) -> None:
    with pytest.raises(NoRespondersError):
        await acme.nats.request("tenant.acme.orders.place", b"x", timeout=PATIENCE)


async def test_a_service_answers_the_asker_past_the_router(
    mesh: Mesh, router: Client, acme: Client
) -> None:
    async def forward(message: Msg) -> None:
        subject = "request." + message.subject.removeprefix("edge.")
        await router.nats.publish(subject, message.data, reply=message.reply)

    async def serve(message: Msg) -> None:
        await message.respond(b"served " + message.data)

    await router.answer("edge.>", forward)
    await (await mesh.role("service")).answer("request.*.orders.*", serve)
    reply = await acme.nats.request("tenant.acme.orders.place", b"1", timeout=PATIENCE)
    assert reply.data == b"served 1"


async def test_the_journal_itself_acknowledges_to_the_tenant(
    mesh: Mesh, router: Client, acme: Client
) -> None:
    async def forward(message: Msg) -> None:
        subject = "tenant." + message.subject.removeprefix("edge.")
        await router.nats.publish(subject, message.data, reply=message.reply)

    control = await mesh.root()
    await control.nats.jetstream().add_stream(
        StreamConfig(name="JOURNAL", subjects=["tenant.*.*.*"])
    )
    await router.answer("edge.>", forward)
    ack = await acme.nats.jetstream().publish("tenant.acme.orders.import", b"1", timeout=PATIENCE)
    assert (ack.stream, ack.duplicate) == ("JOURNAL", None)


async def test_nothing_of_the_edge_is_in_the_mesh_as_admitted(mesh: Mesh, acme: Client) -> None:
    control = await mesh.root()
    admitted = await control.subscribe("tenant.>")
    await acme.nats.publish("tenant.acme.orders.place", b"edge")
    await acme.settle()
    await control.nats.publish("tenant.acme.orders.placed", b"mesh")
    assert (await admitted.next_msg(PATIENCE)).data == b"mesh"
