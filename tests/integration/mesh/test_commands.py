"""Commands: stored once, handled in order by their service."""

from __future__ import annotations

import asyncio

import nats.js.errors
import pytest

from tenantry import errors
from tenantry.bus import Bus
from tests.mesh import PATIENCE, Mesh, Program, eventually, journal, partition
from tests.services import Memory

NOTE = {"text": "x"}


async def test_the_journal_itself_acknowledges_to_a_plain_client(
    acme: Program, control: Bus
) -> None:
    ack = await acme.plain.jetstream().publish(
        f"tenant.{acme.id}.notes.remember", b'{"text": "x"}', timeout=PATIENCE
    )
    entry = (await journal(control, acme.id, "notes.remember"))[-1]
    assert (ack.stream, ack.seq, entry.data) == ("JOURNAL", entry.seq, b'{"text": "x"}')


async def test_our_client_gets_the_same_acknowledgement(acme: Program, control: Bus) -> None:
    ack = await acme.client.publish("notes.remember", NOTE)
    entry = (await journal(control, acme.id, "notes.remember"))[-1]
    assert (ack.stream, ack.seq, ack.duplicate) == ("JOURNAL", entry.seq, False)


async def test_a_command_is_handled(acme: Program) -> None:
    await acme.client.publish("notes.remember", NOTE)
    await eventually(lambda: _remembers(acme, ["x"]))


async def test_a_command_is_stored_in_the_partition_of_its_tenant(
    acme: Program, control: Bus
) -> None:
    await acme.client.publish("notes.remember", NOTE)
    entries = await journal(control, acme.id)
    assert {entry.partition for entry in entries} == {partition(acme.id)}


async def test_a_repeat_under_the_same_id_is_stored_once(acme: Program, control: Bus) -> None:
    first = await acme.client.publish("notes.remember", NOTE, msg_id="7")
    second = await acme.client.publish("notes.remember", NOTE, msg_id="7")
    assert (second.seq, second.duplicate) == (first.seq, True)
    assert len(await journal(control, acme.id, "notes.remember")) == 1


async def test_a_repeat_of_a_plain_client_is_stored_once(acme: Program, control: Bus) -> None:
    jetstream, subject = acme.plain.jetstream(), f"tenant.{acme.id}.notes.remember"
    for _ in range(2):
        ack = await jetstream.publish(
            subject, b'{"text": "x"}', headers={"Nats-Msg-Id": "7"}, timeout=PATIENCE
        )
    assert ack.duplicate
    assert len(await journal(control, acme.id, "notes.remember")) == 1


async def test_another_id_is_another_message(acme: Program) -> None:
    await acme.client.publish("notes.remember", NOTE, msg_id="7")
    assert not (await acme.client.publish("notes.remember", NOTE, msg_id="8")).duplicate


async def test_the_same_id_of_two_tenants_is_two_messages(acme: Program, globex: Program) -> None:
    await acme.client.publish("notes.remember", {"text": "acme"}, msg_id="7")
    assert not (await globex.client.publish("notes.remember", {"text": "g"}, msg_id="7")).duplicate
    await eventually(lambda: _remembers(acme, ["acme"]))
    await eventually(lambda: _remembers(globex, ["g"]))


@pytest.mark.parametrize("forged", ["{other}.e.7", "{other}.m.7", "../{other}.e.7"])
async def test_an_id_cannot_stand_for_another_tenants_message(
    acme: Program, globex: Program, forged: str
) -> None:
    await acme.client.publish("notes.remember", NOTE, msg_id=forged.format(other=globex.id))
    assert not (await globex.client.publish("notes.remember", NOTE, msg_id="7")).duplicate


async def test_the_commands_of_a_tenant_take_effect_in_order(acme: Program) -> None:
    texts = [str(number) for number in range(200)]
    for text in texts:
        await acme.plain.publish(
            f"tenant.{acme.id}.notes.remember", b'{"text": "%s"}' % text.encode()
        )
    await eventually(lambda: _remembers(acme, texts))


async def test_tenants_at_the_same_time_keep_their_own_commands(mesh: Mesh) -> None:
    async with mesh.neighbours() as (one, two), mesh.program() as three:
        programs = (one, two, three)
        for number in range(60):
            for program in programs:
                await program.plain.publish(
                    f"tenant.{program.id}.notes.remember",
                    b'{"text": "%s-%d"}' % (program.id.encode(), number),
                )
        for program in programs:
            texts = [f"{program.id}-{number}" for number in range(60)]
            await eventually(lambda p=program, t=texts: _remembers(p, t))


@pytest.mark.parametrize("action", ["nothing", "noted", "private"])
async def test_a_refused_command_raises_in_a_plain_client(acme: Program, action: str) -> None:
    with pytest.raises(nats.js.errors.APIError) as caught:
        await acme.plain.jetstream().publish(
            f"tenant.{acme.id}.notes.{action}", b"{}", timeout=PATIENCE
        )
    assert caught.value.code == 404
    assert (caught.value.description or "").startswith("unknown_action: ")


async def test_a_refused_command_raises_its_class_in_our_client(ghost: Program) -> None:
    with pytest.raises(errors.TenantUnknown):
        await ghost.client.publish("notes.remember", NOTE)


async def test_a_request_that_is_published_is_no_command(acme: Program) -> None:
    with pytest.raises(errors.Conflict):
        await acme.client.publish("notes.echo", NOTE)


async def test_a_command_that_is_requested_is_acknowledged(acme: Program) -> None:
    assert (await acme.ask("notes.remember", NOTE)).json["stream"] == "JOURNAL"


@pytest.mark.parametrize("body", [b"not json", b'{"text": 1}', b"", b"\xff"])
async def test_a_command_that_does_not_fit_does_not_stop_the_next(
    acme: Program, body: bytes
) -> None:
    await acme.client.publish("notes.remember", {"text": "before"})
    await acme.client.publish("notes.remember", body)
    await acme.client.publish("notes.remember", {"text": "after"})
    await eventually(lambda: _remembers(acme, ["before", "after"]))


async def test_a_command_waits_for_its_service(mesh: Mesh, acme: Program) -> None:
    await mesh.start(mesh.worker(Memory("later").service)).stop()
    for number in range(3):
        await acme.client.publish("later.keep", {"text": str(number)})
    running = mesh.start(mesh.worker(Memory("later").service))
    await eventually(lambda: _remembers(acme, ["0", "1", "2"], "later"))
    await running.stop()


@pytest.mark.parametrize(("plan", "life"), [("standard", "604800s"), ("business", "31536000s")])
async def test_a_command_lives_as_long_as_the_plan_says(
    mesh: Mesh, control: Bus, plan: str, life: str
) -> None:
    async with mesh.program(plan=plan) as program:
        await program.ask("notes.remember", NOTE)
        (entry,) = await journal(control, program.id, "notes.remember")
    assert entry.headers["Nats-TTL"] == life


@pytest.mark.parametrize(
    "fields",
    [
        {"Nats-Expected-Last-Subject-Sequence": "999"},
        {"Nats-Expected-Last-Sequence": "1"},
        {"Nats-TTL": "1h"},
        {"Nats-Schedule": "@at 2040-01-01T00:00:00Z", "Nats-Schedule-Target": "tenant.a.b.c"},
        {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1"},
        {"Nats-Rollup": "sub"},
    ],
)
async def test_a_publish_with_a_condition_raises_in_a_plain_client(
    acme: Program, fields: dict[str, str]
) -> None:
    with pytest.raises(nats.js.errors.APIError) as caught:
        await acme.plain.jetstream().publish(
            f"tenant.{acme.id}.notes.remember", b"{}", timeout=PATIENCE, headers=fields
        )
    assert caught.value.code == 400
    assert next(iter(fields)) in (caught.value.description or "")


async def test_a_command_outlives_no_plan(mesh: Mesh, control: Bus) -> None:
    """A plan's retention is at least a minute, so this only sees that the journal took it."""
    plan = await mesh.plan("brief", retention=60)
    async with mesh.program(plan=plan) as program:
        await program.ask("notes.remember", NOTE)
        (entry,) = await journal(control, program.id, "notes.remember")
    assert entry.headers["Nats-TTL"] == "60s"


async def test_many_commands_at_once_are_all_acknowledged(acme: Program) -> None:
    acks = await asyncio.gather(
        *(acme.client.publish("notes.remember", {"text": str(n)}) for n in range(100))
    )
    assert len({ack.seq for ack in acks}) == 100


async def _remembers(program: Program, texts: list[str], service: str = "notes") -> bool:
    return await program.texts(service) == texts
