"""A command whose handler fails is tried again until it succeeds, and nothing overtakes it."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from tenantry import Context, Retry, Service
from tenantry.bus import Bus, api
from tenantry.messages.checkpoints import Checkpoint
from tenantry.subjects import partition
from tests.integration.mesh.counting import Owners
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import Memory, Note, Noted, failures

WAYS = ["raise", "chained", "cancel", "exit", "hang", "timeout", "reject"]


@pytest.mark.parametrize("how", WAYS)
async def test_a_command_that_fails_is_tried_again(acme: Program, how: str) -> None:
    failures[acme.id] = [how]
    await acme.client.publish("notes.stumble", {"text": "x"})
    await eventually(lambda: _remembers(acme, ["x"]))


async def test_a_command_is_tried_until_it_succeeds(acme: Program) -> None:
    failures[acme.id] = ["raise"] * 3
    await acme.client.publish("notes.stumble", {"text": "x"})
    await eventually(lambda: _remembers(acme, ["x"]))
    assert failures[acme.id] == []


async def test_later_commands_do_not_overtake_one_that_fails(acme: Program) -> None:
    failures[acme.id] = ["raise", "cancel"]
    texts = [str(number) for number in range(30)]
    for text in texts:
        await acme.client.publish("notes.stumble", {"text": text})
    await eventually(lambda: _remembers(acme, texts))


async def test_commands_of_several_kinds_keep_their_order_too(acme: Program) -> None:
    failures[acme.id] = ["raise", "cancel"]
    texts = [str(number) for number in range(10)]
    for number, text in enumerate(texts):
        await acme.client.publish(("notes.stumble", "notes.remember")[number % 2], {"text": text})
    await eventually(lambda: _remembers(acme, texts))


async def test_another_tenant_of_the_lane_does_not_wait(mesh: Mesh) -> None:
    # Short pauses: with those that double, the last one lasts as long as all that came before it.
    retry = Retry(tries=10_000, first=0.05, most=0.2)
    service = Service("stubborn", version="1.0.0", retry=retry)
    tried, seen, fails = set[str](), list[str](), True

    @service.command("do", public=True)
    async def do(ctx: Context, note: Note) -> None:
        if note.text == "acme" and fails:
            tried.add(ctx.tenant)
            raise RuntimeError("as told")
        seen.append(note.text)

    @service.request("echo", public=True)
    async def echo(_ctx: Context, note: Note) -> Note:
        return note

    async def has(texts: list[str]) -> bool:
        return seen == texts

    async def failed() -> bool:
        return bool(tried)

    running = mesh.start(mesh.worker(service))
    async with mesh.neighbours() as (acme, globex):
        await mesh.ready(acme, "stubborn.echo")
        texts = [str(number) for number in range(50)]
        await acme.client.publish("stubborn.do", {"text": "acme"})
        await eventually(failed)
        for text in texts:
            await globex.client.publish("stubborn.do", {"text": text})
        await eventually(lambda: has(texts))
        fails = False
        await eventually(lambda: has([*texts, "acme"]))
    await running.stop()


async def test_a_pause_by_a_clock_that_was_ahead_is_no_longer_than_any(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    service, fails, handled = Service("hasty", retry=Retry(first=0.5, most=0.5)), True, list[str]()

    @service.command("do", public=True)
    async def do(_ctx: Context, note: Note) -> None:
        if fails:
            raise RuntimeError("as told")
        handled.append(note.text)

    kept, key = Owners(control, "hasty"), partition(acme.id)

    async def failed() -> bool:
        return acme.id in (await kept.checkpoint(key)).open

    def an_hour_ahead(found: Checkpoint) -> Checkpoint:
        row = found.open[acme.id]
        later = msgspec.structs.replace(row, retry_at=time.time() + 3600)
        return msgspec.structs.replace(found, open={**found.open, acme.id: later})

    async def done() -> bool:
        return handled == ["x"]

    running = mesh.start(mesh.worker(service))
    await acme.client.publish("hasty.do", {"text": "x"})
    await eventually(failed)
    await running.stop()
    fails = False
    await kept.change(key, an_hour_ahead)
    running = mesh.start(mesh.worker(service))
    await eventually(done)
    await running.stop()


async def test_what_a_failed_try_emitted_is_not_published(acme: Program, control: Bus) -> None:
    failures[acme.id] = ["raise", "cancel", "reject"]
    await acme.client.publish("notes.stumble", {"text": "x"})
    await eventually(lambda: _remembers(acme, ["x"], "followers"))
    assert len(await journal(control, acme.id, "notes.noted")) == 1


async def test_a_message_that_is_delivered_again_emits_the_same(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    handled: list[str] = []
    service = Service("repeats", version="1.0.0")
    kept = service.event("kept", Noted)

    @service.command("keep", public=True)
    async def keep(ctx: Context, note: Note) -> None:
        handled.append(note.text)
        ctx.emit(kept, Noted(note.text, ctx.attempt))

    async def came(*texts: str) -> bool:
        return handled == list(texts)

    running = mesh.start(mesh.worker(service))
    await acme.client.publish("repeats.keep", {"text": "x"})
    await eventually(lambda: came("x"))
    await running.stop()
    # A service without a checkpoint reads the journal from its start.
    key = f"$KV.checkpoints.repeats.{partition(acme.id)}"
    await api(control, "STREAM.PURGE.KV_checkpoints", {"filter": key})
    running = mesh.start(mesh.worker(service))
    await eventually(lambda: came("x", "x"))
    await acme.client.publish("repeats.keep", {"text": "y"})
    await eventually(lambda: came("x", "x", "y"))
    await running.stop()
    events = await journal(control, acme.id, "repeats.kept")
    assert [event.data for event in events] == [
        b'{"text":"x","attempt":1}',
        b'{"text":"y","attempt":1}',
    ]


async def test_followers_see_what_is_emitted_twice_once(acme: Program) -> None:
    fields = {"Nats-Msg-Id": "7"}
    for _ in range(2):
        await acme.ask("notes.emit", {"text": "x", "count": 2}, headers=fields)
    await acme.ask("notes.emit", {"text": "later", "count": 1})
    await eventually(lambda: _remembers(acme, ["x0", "x1", "later0"], "followers"))


async def test_events_reach_their_followers_in_order(acme: Program) -> None:
    for number in range(5):
        await acme.ask("notes.emit", {"text": f"{number}.", "count": 10})
    texts = [f"{number}.{index}" for number in range(5) for index in range(10)]
    await eventually(lambda: _remembers(acme, texts, "followers"))


async def test_events_of_a_tenant_reach_nobody_elses_state(acme: Program, globex: Program) -> None:
    await asyncio.gather(
        acme.ask("notes.emit", {"text": "acme", "count": 20}),
        globex.ask("notes.emit", {"text": "globex", "count": 20}),
    )
    for program, name in ((acme, "acme"), (globex, "globex")):
        texts = [f"{name}{index}" for index in range(20)]
        await eventually(lambda p=program, t=texts: _remembers(p, t, "followers"))


@pytest.mark.parametrize(("plan", "life"), [("standard", "604800s"), ("business", "31536000s")])
async def test_an_event_lives_as_long_as_the_plan_says(
    mesh: Mesh, control: Bus, plan: str, life: str
) -> None:
    async with mesh.program(plan=plan) as program:
        await program.ask("notes.emit", {"text": "x", "count": 1})
        await program.client.publish("notes.stumble", {"text": "y"})
        await eventually(lambda: _remembers(program, ["x0", "y"], "followers"))
        entries = await journal(control, program.id, "notes.noted")
    assert {entry.headers["Nats-TTL"] for entry in entries} == {life}


async def _remembers(program: Program, texts: list[str], service: str = "notes") -> bool:
    return await program.texts(service) == texts


async def _is(memory: Memory, count: int) -> bool:
    return len(memory.handled) == count
