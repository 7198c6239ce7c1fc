"""What a tenant may have in the journal, in bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tenantry import errors
from tenantry.bus import Bucket, Bus, api
from tenantry.journal.erase import erase
from tenantry.messages import Volume, VolumeProgress
from tenantry.volumes import BUCKET, total
from tenantry_workers.router import RouterWorker
from tenantry_workers.tenants import TenantsWorker
from tests import services
from tests.integration.mesh.test_quotas import events
from tests.mesh import Mesh, Program, eventually, journal

BOUND = 20_000
BODY = msgspec.json.encode({"text": "x" * 1_800})
FIELDS = {"rate": 10_000.0, "burst": 10_000, "max_body": 10_000}


@pytest.fixture
async def bounded(mesh: Mesh) -> AsyncIterator[Any]:
    """Makes a tenant that may have so many bytes."""
    contexts = []

    async def make(bound: int = BOUND, **fields: Any) -> Program:
        name = await mesh.plan(
            f"bounded_{time.monotonic_ns()}", **FIELDS | {"journal_bytes": bound} | fields
        )
        contexts.append(mesh.program(plan=name))
        return await contexts[-1].__aenter__()

    yield make
    for context in contexts:
        await context.__aexit__(None, None, None)


async def counted(bus: Bus, tenant: str) -> int:
    entry = await Bucket(bus, BUCKET, Volume).get(tenant)
    return total(entry.value, time.time()) if entry is not None else -1


async def is_exact(bus: Bus, tenant: str) -> bool:
    """Whether what is counted of the only tenant is what the server says of the whole journal."""
    state = (await api(bus, "STREAM.INFO.JOURNAL"))["state"]
    return await counted(bus, tenant) == state["bytes"]


async def fill(program: Program) -> int:
    """Send commands until one is refused; how many were stored."""
    for number in range(1_000):
        answer = await program.ask("notes.remember", BODY)
        if answer.code:
            assert answer.code == "quota_exceeded"
            return number
    raise AssertionError("never full")


async def test_commands_that_do_not_fit_are_refused(bounded: Any) -> None:
    assert 5 <= await fill(await bounded()) <= 10


async def test_it_stays_within_the_bound(bounded: Any, control: Bus) -> None:
    program = await bounded()
    await fill(program)
    sizes = [len(entry.data) for entry in await journal(control, program.id, "notes.remember")]
    assert len(sizes) * len(BODY) == sum(sizes) < BOUND


async def test_the_refusal_tells_which_limit(bounded: Any) -> None:
    program = await bounded()
    await fill(program)
    refusal = await program.ask("notes.remember", BODY)
    assert refusal.json["violated-policies"] == ["journal-bytes"]
    assert refusal.headers["RateLimit-Policy"] == f'"journal-bytes";q={BOUND};w=604800'
    assert 0 < int(refusal.headers["Retry-After"]) <= 33 * 7 * 86_400 / 32


async def test_requests_go_on(bounded: Any) -> None:
    program = await bounded()
    await fill(program)
    assert (await program.ask("notes.texts")).code == ""


async def test_other_tenants_go_on(bounded: Any) -> None:
    first, other = await bounded(), await bounded()
    await fill(first)
    assert (await other.ask("notes.remember", BODY)).code == ""


async def test_without_a_bound_there_is_none(acme: Program, control: Bus) -> None:
    for _ in range(30):
        assert (await acme.ask("notes.remember", BODY)).code == ""
    assert await counted(control, acme.id) == -1


async def test_what_was_there_before_the_bound_counts(
    mesh: Mesh, acme: Program, control: Bus
) -> None:
    for _ in range(10):
        await acme.ask("notes.remember", BODY)
    own = {"journal_bytes": BOUND, "max_body": 10_000}
    await mesh.control("override", id=acme.id, override=own)

    async def all_counted() -> bool:
        return await counted(control, acme.id) > 10 * len(BODY)

    async def full() -> bool:
        return (await acme.ask("notes.remember", BODY)).code == "quota_exceeded"

    await eventually(all_counted)
    await eventually(full)


async def test_a_bound_that_is_lifted_is_not_counted(
    mesh: Mesh, bounded: Any, control: Bus
) -> None:
    program = await bounded()
    await fill(program)
    await mesh.control("override", id=program.id, override={"journal_bytes": 0})

    async def gone() -> bool:
        return await counted(control, program.id) == -1

    await eventually(gone)
    assert (await program.ask("notes.remember", BODY)).code == ""


async def test_erasing_makes_room(mesh: Mesh, bounded: Any, control: Bus) -> None:
    program = await bounded()
    await fill(program)
    await erase(control, program.id)

    async def room() -> bool:
        return (await program.ask("notes.remember", BODY)).code == ""

    await eventually(room)


async def told(control: Bus, program: Program) -> list[str]:
    return [
        name
        for name, event in await events(control, program)
        if name.startswith("quota_") and event["quota"] == "journal-bytes"
    ]


async def test_the_tenant_hears_that_it_is_nearly_full(bounded: Any, control: Bus) -> None:
    program = await bounded(100_000)
    last = 0

    async def more() -> bool:
        return await counted(control, program.id) > last

    while last < 80_000:
        assert (await program.ask("notes.remember", {"text": "x" * 3_000})).code == ""
        await eventually(more)
        last = await counted(control, program.id)

    async def warned() -> bool:
        return await told(control, program) == ["quota_warned"]

    await eventually(warned)


async def test_the_tenant_hears_that_it_is_full(bounded: Any, control: Bus) -> None:
    program = await bounded(1_000_000)
    body = msgspec.json.encode({"text": "x" * 9_000})
    while (await program.ask("notes.remember", body)).code == "":
        pass

    async def exhausted() -> bool:
        return (await told(control, program))[-1:] == ["quota_exhausted"]

    await eventually(exhausted)


async def test_a_bound_below_one_body_is_refused(mesh: Mesh) -> None:
    with pytest.raises(errors.BadMessage, match="journal_bytes 10 is less than max_body 262144"):
        await mesh.control("apply_plans", plans=[{"name": "tiny", "journal_bytes": 10}])


@pytest.fixture
async def alone(own_mesh: Mesh) -> AsyncIterator[Program]:
    """The only tenant of a mesh."""
    own_mesh.start(own_mesh.worker(services.notes))
    plan = await own_mesh.plan("bounded", journal_bytes=10**6, **FIELDS)
    async with own_mesh.program(plan=plan) as program:
        await own_mesh.ready(program, "notes.texts")
        yield program


async def test_what_is_counted_is_what_the_journal_holds(own_mesh: Mesh, alone: Program) -> None:
    for number in range(5):
        await alone.ask("notes.remember", {"text": "x" * number * 100})
    await alone.ask("notes.remember", b'{"text": "y"}', headers={"Own": "z", "Nats-Msg-Id": "m"})
    async with await own_mesh.insider("control") as bus:
        await eventually(lambda: is_exact(bus, alone.id))


async def test_it_is_counted_on_by_the_next_worker(own_mesh: Mesh, alone: Program) -> None:
    for _ in range(5):
        await alone.ask("notes.remember", BODY)
    await own_mesh.running[0].stop()
    for _ in range(5):
        await alone.ask("notes.remember", BODY)
    for _ in range(2):  # two replicas, of which one counts
        own_mesh.start(TenantsWorker(own_mesh.options()))
    async with await own_mesh.insider("control") as bus:
        await eventually(lambda: is_exact(bus, alone.id))


async def test_it_is_counted_on_where_the_former_clock_was_an_hour_ahead(
    own_mesh: Mesh, alone: Program
) -> None:
    async with await own_mesh.insider("control") as control:
        place = Bucket(control, "volumes", VolumeProgress)

        async def is_counted_on() -> bool:
            entry = await place.get("journal.progress")
            return entry is not None and entry.value.owner != "former"

        def taken(there: VolumeProgress | None) -> VolumeProgress:
            seen = time.time() + 3600
            before = there or VolumeProgress()
            return msgspec.structs.replace(before, owner="former", seen=seen)

        await place.change("journal.progress", taken)
        await eventually(is_counted_on)


async def test_it_is_counted_on_after_the_server_was_killed(own_mesh: Mesh, alone: Program) -> None:
    for _ in range(5):
        await alone.ask("notes.remember", BODY)
    await asyncio.to_thread(own_mesh.backend.kill)
    await asyncio.to_thread(own_mesh.backend.start)
    async with await own_mesh.client(alone.creds) as client:

        async def stored() -> bool:
            try:
                await client.publish("notes.remember", {"text": "again"})
            except errors.Rejection:
                return False
            return True

        await eventually(stored)
    async with await own_mesh.insider("control") as bus:
        await eventually(lambda: is_exact(bus, alone.id))


async def test_another_router_knows_what_is_there(own_mesh: Mesh) -> None:
    own_mesh.start(own_mesh.worker(services.notes))
    plan = await own_mesh.plan("bounded", journal_bytes=BOUND, **FIELDS)
    async with own_mesh.program(plan=plan) as program:
        await own_mesh.ready(program, "notes.texts")
        stored = await fill(program)
        async with await own_mesh.insider("control") as bus:

            async def seen() -> bool:
                return await counted(bus, program.id) > stored * len(BODY)

            await eventually(seen)
        own_mesh.start(RouterWorker(own_mesh.options()))
        await own_mesh.running[1].stop()
        assert (await program.ask("notes.remember", BODY)).code == "quota_exceeded"
