"""An event tells of each dead letter."""

from __future__ import annotations

import json
from typing import Any

from tenantry import Context, Service
from tenantry.bus import Bus, store
from tenantry.messages import MessageDead
from tests.letters import died, lay, sent
from tests.mesh import Entry, Mesh, Program, eventually, journal
from tests.services import Texts


async def events(control: Bus, tenant: str) -> list[Entry]:
    return await journal(control, tenant, "tenants.message_dead")


async def told(control: Bus, tenant: str, count: int) -> list[dict[str, Any]]:
    """The events, once there are so many."""

    async def enough() -> bool:
        return len(await events(control, tenant)) >= count

    await eventually(enough)
    return [json.loads(entry.data) for entry in await events(control, tenant)]


async def test_the_event_says_what_died_and_why(control: Bus, acme: Program) -> None:
    entry = await sent(control, acme, "poor")
    number = await lay(control, acme.id, entry, at=1_700_000_000.5)
    assert await told(control, acme.id, 1) == [
        {
            "tenant": acme.id,
            "plan": "business",
            "at": 1_700_000_000.5,
            "number": number,
            "service": "notes",
            "action": "notes.remember",
            "reason": "handler_failed",
            "attempts": 3,
            "seq": entry.seq,
        }
    ]


async def test_each_letter_has_one_under_its_number_and_in_order(
    control: Bus, acme: Program
) -> None:
    laid = [await died(control, acme, text) for text in ("one", "two", "three")]
    assert [each["number"] for each in await told(control, acme.id, 3)] == laid
    ids = [entry.headers["Nats-Msg-Id"] for entry in await events(control, acme.id)]
    assert ids == [f"{acme.id}.d.{number}" for number in laid]


async def test_it_goes_on_the_messages_own_trace(control: Bus, acme: Program) -> None:
    entry = await sent(control, acme, "traced")
    await lay(control, acme.id, entry)
    await told(control, acme.id, 1)
    (event,) = await events(control, acme.id)
    trace_id = entry.headers["traceparent"].split("-")[1]
    assert event.headers["traceparent"].split("-")[1] == trace_id


async def test_what_is_no_letter_does_not_stop_the_others(control: Bus, acme: Program) -> None:
    await store(control, f"dead.{acme.id}.notes.1", b"?")
    await store(control, "dead.nobody.notes.1", b"?")
    number = await lay(control, acme.id, await sent(control, acme, "good"))
    assert [each["number"] for each in await told(control, acme.id, 1)] == [number]


async def test_a_letter_of_no_tenant_does_not_stop_the_others(control: Bus, acme: Program) -> None:
    entry = await sent(control, acme, "good")
    await lay(control, "nobody-at-all", entry)
    number = await lay(control, acme.id, entry)
    assert [each["number"] for each in await told(control, acme.id, 1)] == [number]
    assert await events(control, "nobody-at-all") == []


async def test_who_fails_at_hearing_of_it_hears_of_no_more(control: Bus, acme: Program) -> None:
    await lay(control, acme.id, await sent(control, acme, "first"))
    await told(control, acme.id, 1)
    (event,) = await events(control, acme.id)
    await lay(control, acme.id, _stored(event), service="followers")
    last = await lay(control, acme.id, await sent(control, acme, "last"))
    numbers = [each["number"] for each in await told(control, acme.id, 2)]
    assert len(numbers) == 2
    assert numbers[1] == last


async def test_a_service_follows_them_in_the_tenants_name(mesh: Mesh, control: Bus) -> None:
    service = Service("mourner")

    @service.on("tenants.message_dead")
    async def mourn(ctx: Context, event: MessageDead) -> None:
        await ctx.state.put("mourned", Texts((ctx.tenant, ctx.principal, event.action)))

    @service.request("texts", public=True)
    async def texts(ctx: Context) -> Texts:
        entry = await ctx.state.get("mourned", Texts)
        return entry.value if entry else Texts()

    running = mesh.start(mesh.worker(service))
    async with mesh.program() as program:
        await lay(control, program.id, await sent(control, program, "poor"))
        await eventually(lambda: _mourned(program, [program.id, "platform", "notes.remember"]))
    await running.stop()


async def _mourned(program: Program, texts: list[str]) -> bool:
    return await program.texts("mourner") == texts


def _stored(entry: Entry) -> Entry:
    return entry._replace(headers={**entry.headers, "stored": "1.0"})
