"""A redriven letter goes through delivery once more: once, in order, in its tenant's name."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import pytest

from tenantry.bus import Bucket, Bus, api, store
from tenantry.letters import Letters, Selection
from tenantry.messages import Redrive
from tenantry.redrive import Outcome, Redriver
from tenantry.subjects import address
from tenantry.subjects import journal as journal_subject
from tests import services
from tests.letters import died, lay, sent, stored
from tests.mesh import Entry, Mesh, Program, eventually, journal


async def redrive(
    control: Bus, tenants: dict[str, list[int]], principal: str | None = None
) -> list[Outcome]:
    told: list[Outcome] = []
    async with Redriver(control, principal=principal) as redriver:
        await redriver.redrive(tenants, told.append)
    return told


async def left(control: Bus, tenant: str) -> list[int]:
    return [each.number async for each in Letters(control).select(Selection(tenant=tenant))]


async def redriven(control: Bus, tenant: str) -> list[Entry]:
    found = await journal(control, tenant, "notes.remember")
    return [entry for entry in found if "Tenant-Only" in entry.headers]


async def _says(program: Program, texts: list[str]) -> bool:
    return await program.texts() == texts


async def test_it_is_handled_again_and_the_letter_is_gone(control: Bus, acme: Program) -> None:
    number = await died(control, acme, "once")
    (outcome,) = await redrive(control, {acme.id: [number]})
    assert outcome.result == "redriven"
    await eventually(lambda: _says(acme, ["once", "once"]))
    assert await left(control, acme.id) == []


async def test_the_journal_has_the_message_as_it_was(control: Bus, acme: Program) -> None:
    entry = await sent(control, acme, "same")
    number = await lay(control, acme.id, entry)
    (outcome,) = await redrive(control, {acme.id: [number]})
    (again,) = await redriven(control, acme.id)
    assert (again.seq, again.name, again.data) == (outcome.seq, entry.name, entry.data)
    assert again.headers["traceparent"] == entry.headers["traceparent"]
    assert again.headers["Nats-TTL"] == entry.headers["Nats-TTL"]
    assert not [name for name in again.headers if name.startswith("Tenant-Dead")]


async def test_it_says_whom_it_is_for_and_what_it_was(control: Bus, acme: Program) -> None:
    entry = await sent(control, acme, "for")
    number = await lay(control, acme.id, entry, service="followers")
    await redrive(control, {acme.id: [number]})
    (again,) = await redriven(control, acme.id)
    assert again.headers["Tenant-Only"] == "followers"
    assert again.headers["Tenant-Message-Id"] == f"journal:{entry.seq}"
    assert again.headers["Nats-Msg-Id"] == f"{acme.id}.r.followers.{entry.seq}.{number}"


async def test_the_id_of_the_message_stays(control: Bus, acme: Program) -> None:
    entry = await sent(control, acme, "id")
    entry.headers["Nats-Msg-Id"] = "as-it-was"
    await redrive(control, {acme.id: [await lay(control, acme.id, entry)]})
    (again,) = await redriven(control, acme.id)
    assert again.headers["Tenant-Message-Id"] == "as-it-was"


async def test_the_id_stays_when_it_dies_a_second_time(control: Bus, acme: Program) -> None:
    entry = await sent(control, acme, "twice")
    entry.headers.update({"Nats-Msg-Id": "the-copys", "Tenant-Message-Id": "the-first"})
    await redrive(control, {acme.id: [await lay(control, acme.id, entry)]})
    (again,) = await redriven(control, acme.id)
    assert again.headers["Tenant-Message-Id"] == "the-first"


async def test_a_message_without_an_end_gets_none(control: Bus, acme: Program) -> None:
    entry = await sent(control, acme, "for good")
    del entry.headers["Nats-TTL"]
    await redrive(control, {acme.id: [await lay(control, acme.id, entry)]})
    (again,) = await redriven(control, acme.id)
    assert "Nats-TTL" not in again.headers


async def test_its_context_is_fresh_and_says_the_same(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    entry = await sent(control, acme, "old")
    minter = mesh.minter()
    old = minter.mint(acme.id, "business", "ada", roles=("clerk",), now=1_000.0)
    entry.headers["Tenant-Context"] = old
    await redrive(control, {acme.id: [await lay(control, acme.id, entry, stored=1_010.0)]})
    (again,) = await redriven(control, acme.id)
    claims = _claims(again.headers["Tenant-Context"])
    assert (claims["tenant"], claims["sub"], claims["roles"]) == (acme.id, "ada", ["clerk"])
    assert claims["exp"] > time.time()


async def test_letters_of_a_tenant_keep_their_order(control: Bus, acme: Program) -> None:
    texts = [str(each) for each in range(12)]
    laid = [await lay(control, acme.id, await sent(control, acme, text)) for text in texts]
    await eventually(lambda: _says(acme, texts))
    await redrive(control, {acme.id: laid})
    await eventually(lambda: _says(acme, texts + texts))


async def test_several_tenants(control: Bus, acme: Program, globex: Program) -> None:
    mine, other = await died(control, acme, "mine"), await died(control, globex, "other")
    told = await redrive(control, {acme.id: [mine], globex.id: [other]})
    assert {(each.tenant, each.result) for each in told} == {
        (acme.id, "redriven"),
        (globex.id, "redriven"),
    }
    await eventually(lambda: _says(acme, ["mine", "mine"]))
    await eventually(lambda: _says(globex, ["other", "other"]))


async def test_what_is_gone_is_told(control: Bus, acme: Program) -> None:
    number = await died(control, acme, "gone")
    await Letters(control).drop(number)
    (outcome,) = await redrive(control, {acme.id: [number]})
    assert outcome.result == "gone"
    assert await redriven(control, acme.id) == []


# in whose name


@pytest.mark.parametrize("token", ["", "forged", "another"])
async def test_a_bad_context_is_refused_and_the_letter_stays(
    mesh: Mesh, control: Bus, acme: Program, token: str
) -> None:
    number = await lay(control, acme.id, await forged(mesh, control, acme, token))
    (outcome,) = await redrive(control, {acme.id: [number]})
    assert outcome.result == "refused"
    assert "--principal" in outcome.why
    assert await left(control, acme.id) == [number]
    assert await redriven(control, acme.id) == []


@pytest.mark.parametrize("token", ["", "forged", "another"])
async def test_a_bad_context_goes_in_the_name_that_is_given(
    mesh: Mesh, control: Bus, acme: Program, token: str
) -> None:
    number = await lay(control, acme.id, await forged(mesh, control, acme, token))
    (outcome,) = await redrive(control, {acme.id: [number]}, principal="ops")
    assert outcome.result == "redriven"
    (again,) = await redriven(control, acme.id)
    claims = _claims(again.headers["Tenant-Context"])
    assert (claims["tenant"], claims["sub"], claims["roles"]) == (acme.id, "ops", [])


async def test_a_good_context_keeps_its_name(control: Bus, acme: Program) -> None:
    number = await lay(control, acme.id, await sent(control, acme, "mine"))
    await redrive(control, {acme.id: [number]}, principal="ops")
    (again,) = await redriven(control, acme.id)
    assert _claims(again.headers["Tenant-Context"])["sub"] != "ops"


async def test_a_refused_letter_does_not_hold_up_the_next(
    mesh: Mesh, control: Bus, acme: Program
) -> None:
    bad = await lay(control, acme.id, await forged(mesh, control, acme, "forged"))
    garbage = (await store(control, f"dead.{acme.id}.notes.0", b"?")).seq
    good = await lay(control, acme.id, await sent(control, acme, "good"))
    told = await redrive(control, {acme.id: [bad, garbage, good]})
    assert [each.result for each in told] == ["refused", "refused", "redriven"]
    assert await left(control, acme.id) == [bad, garbage]


async def test_a_deleted_tenants_letters_stay(mesh: Mesh, control: Bus, acme: Program) -> None:
    number = await lay(control, acme.id, await sent(control, acme, "late"))
    await mesh.control("delete", id=acme.id)
    (outcome,) = await redrive(control, {acme.id: [number]})
    assert outcome.result == "refused"
    assert await left(control, acme.id) == [number]


# cut off half way


async def test_a_redrive_leaves_no_mark(control: Bus, acme: Program) -> None:
    number = await died(control, acme, "clean")
    await redrive(control, {acme.id: [number]})
    assert await _marks(control).get(f"{acme.id}.{number}") is None


async def test_what_the_journal_has_is_not_stored_again_however_late(
    control: Bus, acme: Program
) -> None:
    """As if the first redrive was killed after it had published, and the dedup window is over."""
    entry = await sent(control, acme, "once")
    number = await lay(control, acme.id, entry)
    mark = Redrive(id="its-own", since=entry.seq, at=0.0)
    await _marks(control).create(f"{acme.id}.{number}", mark)
    own = {**entry.headers, "Nats-Msg-Id": "its-own", "Tenant-Only": "notes"}
    subject = journal_subject(address(acme.id, "notes.remember"))
    copy = await store(control, subject, entry.data, headers=own)
    (outcome,) = await redrive(control, {acme.id: [number]})
    assert (outcome.result, outcome.seq) == ("redriven", copy.seq)
    assert [each.seq for each in await redriven(control, acme.id)] == [copy.seq]
    assert await left(control, acme.id) == []
    assert await _marks(control).get(f"{acme.id}.{number}") is None


async def test_what_the_journal_has_not_is_stored(control: Bus, acme: Program) -> None:
    """As if the first redrive was killed before it could publish."""
    entry = await sent(control, acme, "once")
    number = await lay(control, acme.id, entry)
    mark = Redrive(id="its-own", since=entry.seq, at=0.0)
    await _marks(control).create(f"{acme.id}.{number}", mark)
    (outcome,) = await redrive(control, {acme.id: [number]})
    assert outcome.result == "redriven"
    assert [each.seq for each in await redriven(control, acme.id)] == [outcome.seq]
    assert await left(control, acme.id) == []


async def test_a_full_journal_stops_the_tenant_and_nothing_is_lost(own_mesh: Mesh) -> None:
    own_mesh.start(own_mesh.worker(services.notes))
    async with await own_mesh.insider("root") as control, own_mesh.program() as acme:
        laid = [await died(control, acme, text) for text in ("one", "two")]
        info = await api(control, "STREAM.INFO.JOURNAL")
        full = {**info["config"], "max_bytes": info["state"]["bytes"]}
        await api(control, "STREAM.UPDATE.JOURNAL", full)
        (outcome,) = await redrive(control, {acme.id: laid})
        assert (outcome.number, outcome.result) == (laid[0], "failed")
        assert await left(control, acme.id) == laid
        await api(control, "STREAM.UPDATE.JOURNAL", info["config"])
        told = await redrive(control, {acme.id: laid})
        assert [each.result for each in told] == ["redriven", "redriven"]
        await eventually(lambda: _says(acme, ["one", "two", "one", "two"]))


async def test_a_server_that_is_killed_meanwhile_stores_none_twice(own_mesh: Mesh) -> None:
    async with await own_mesh.insider("root") as control, own_mesh.program() as acme:
        entry = await sent_to_nobody(own_mesh, control, acme)
        laid = [await lay(control, acme.id, entry._replace(seq=each)) for each in range(1, 401)]
        at_work = asyncio.create_task(redrive(control, {acme.id: laid}))
        await eventually(lambda: _fewer(control, acme.id, 400))
        await asyncio.to_thread(own_mesh.backend.kill)
        await asyncio.to_thread(own_mesh.backend.start)
        assert {each.result for each in await at_work} <= {"redriven", "gone", "failed"}

        async def through() -> bool:
            told = await redrive(control, {acme.id: await left(control, acme.id)})
            return "failed" not in {each.result for each in told}

        await eventually(through)
        ids = [each.headers["Nats-Msg-Id"] for each in await redriven(control, acme.id)]
        assert [int(each.rpartition(".")[2]) for each in ids] == laid
        assert await left(control, acme.id) == []


async def test_two_at_once_store_it_once(control: Bus, mesh: Mesh, acme: Program) -> None:
    laid = [await lay(control, acme.id, await sent(control, acme, str(n))) for n in range(20)]
    async with await mesh.insider("control") as another, Redriver(another) as second:
        told: list[Outcome] = []
        async with Redriver(control) as first:
            await asyncio.gather(
                first.redrive({acme.id: laid}, told.append),
                second.redrive({acme.id: laid}, told.append),
            )
    assert {each.result for each in told} <= {"redriven", "gone"}
    assert len(await redriven(control, acme.id)) == 20
    assert await left(control, acme.id) == []


async def forged(mesh: Mesh, control: Bus, program: Program, how: str) -> Entry:
    entry = await sent(control, program, "forged")
    tokens = {
        "": "",
        "forged": entry.headers["Tenant-Context"][:-8] + "AAAAAAAA",
        "another": mesh.minter().mint("another", "business", "eve"),
    }
    if not (token := tokens[how]):
        del entry.headers["Tenant-Context"]
    else:
        entry.headers["Tenant-Context"] = token
    return entry


async def sent_to_nobody(mesh: Mesh, control: Bus, program: Program) -> Entry:
    """A message of a tenant, of which no service knows anything."""
    token = mesh.minter().mint(program.id, "business", "ada")
    subject = journal_subject(address(program.id, "notes.remember"))
    ack = await store(control, subject, b"{}", headers={"Tenant-Context": token})
    return await stored(control, ack.seq)


async def _fewer(control: Bus, tenant: str, count: int) -> bool:
    return len(await left(control, tenant)) < count


def _marks(control: Bus) -> Bucket[Redrive]:
    return Bucket(control, "redrives", Redrive)


def _claims(token: str) -> dict[str, object]:
    body = token.split(".")[1]
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims
