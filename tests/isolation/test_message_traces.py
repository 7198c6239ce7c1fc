"""nats-server's own tracing of messages: a header says where each hop of a message is told."""

from __future__ import annotations

import json

import pytest

from tenantry.bus import Bus
from tests.isolation.attacker import Wire
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually

NOTE = b'{"text": "x"}'


def block(*fields: str) -> bytes:
    """A header block."""
    return "\r\n".join(["NATS/1.0", *fields, "", ""]).encode()


ELSEWHERE = [
    "_INBOX.{own}.x",
    "_INBOX.{other}.x",
    "tenant.{other}.notes.remember",
    "x",
    "$JS.API.x",
]


@cannot(30, Layer.SERVER)
async def test_no_trace_goes_where_the_program_may_not_publish(
    hostile: Wire, globex: Program, acme: Program, neighbour: Wire
) -> None:
    for place in ELSEWHERE:
        to = place.format(own=globex.id, other=acme.id)
        for fields in (
            [f"Nats-Trace-Dest: {to}"],
            [f"Nats-Trace-Dest:{to}"],
            [f"Nats-Trace-Dest: {to}", f"Nats-Trace-Dest: tenant.{globex.id}.a.b"],
            ["Nats-Trace-Only: true", f"Nats-Trace-Dest: {to}"],
        ):
            said = block(*fields)
            assert not await hostile.publish(f"tenant.{globex.id}.notes.echo", NOTE, block=said)
            assert f'Publish to "{to}"' in hostile.errors[-1]
    await neighbour.say(b"")
    assert neighbour.heard == []
    assert await acme.texts() == []


@cannot(30, Layer.ROUTER, without=Layer.SERVER)
@pytest.mark.parametrize(
    "name",
    ["Nats-Trace-Dest", "nats-trace-dest", "NATS-TRACE-DEST", "Nats-Trace-Hop", "nats-Trace-Only"],
)
async def test_no_trace_is_asked_for_inside_the_mesh(acme: Program, name: str) -> None:
    """As far as the own subjects the server lets it pass."""
    fields = {name: f"tenant.{acme.id}.notes.nothing"}
    answer = await acme.ask("notes.seen", headers=fields)
    assert answer.json["headers"].keys() == {
        "Tenant-Context",
        "Tenant-Deadline",
        "Tenant-Timeout",
        "traceparent",
    }


@cannot(30, Layer.ACCOUNT, without=Layer.SERVER)
async def test_a_trace_ends_where_the_tenants_account_ends(
    victim: Program, anyone: Wire, open_mesh: Mesh
) -> None:
    """What is beyond would name workers and how they are connected."""
    assert await anyone.subscribe("_INBOX.anyone.>")
    said = block("Nats-Trace-Dest: _INBOX.anyone.x")
    for action in ("echo", "remember", "nothing"):
        to = f"tenant.{victim.id}.notes.{action}"
        await anyone.publish(to, NOTE, reply=f"_INBOX.{victim.id}.x", block=said)

    async def told() -> bool:
        return len(anyone.heard) == 3

    await eventually(told)
    for each in anyone.heard:
        hops = json.loads(each.data)["events"]
        assert [hop["type"] for hop in hops] == ["in", "se"]
        assert b"router" not in each.data.lower()


@can(30)
async def test_into_its_own_subjects_a_tenant_may_have_the_server_tell(
    hostile: Wire, globex: Program, control: Bus
) -> None:
    """It comes like any message of its own: to the router, and on if it fits."""
    said = block(f"Nats-Trace-Dest: tenant.{globex.id}.notes.nothing")
    assert await hostile.publish(f"tenant.{globex.id}.notes.echo", NOTE, block=said)


@cannot(30, Layer.SERVER)
async def test_a_trace_parent_alone_asks_for_no_trace(hostile: Wire, globex: Program) -> None:
    """An account can be told to trace those; none of ours is."""
    await hostile.subscribe(f"_INBOX.{globex.id}.>")
    said = block("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    to, reply = f"tenant.{globex.id}.notes.echo", f"_INBOX.{globex.id}.x"
    for _ in range(3):
        assert await hostile.publish(to, NOTE, reply=reply, block=said)

    async def came() -> bool:
        return len(hostile.heard) >= 3

    await eventually(came)
    assert {each.data for each in hostile.heard} == {b'{"text":"x","count":0}'}
