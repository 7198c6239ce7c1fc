"""Messages that leave their dead letter no room, and rejections that are hard to tell of."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from tenantry import Context, Retry, Service, errors
from tenantry.bus import Bus
from tenantry.bus.connection import HEADROOM
from tenantry.bus.jetstream import store
from tenantry.letters import Letter, Letters, Selection
from tenantry.redrive import Redriver
from tests.mesh import Mesh, Program, eventually
from tests.services import Note

LIMIT = 2**20
HEADERS = 65_535
"""Bytes of headers that JetStream takes."""

ROOM = 200
"""Bytes that are left for headers: enough for a redrive's, and too few for a dead letter's."""


class Fussy:
    """A service that fails as it is told to, and keeps the length of what it has handled."""

    def __init__(self) -> None:
        self.service = Service("fussy", retry=Retry(tries=1))
        self.service.command("take", public=True)(self.take)
        self.why: Exception | None = None
        self.taken: list[int] = []

    async def take(self, _ctx: Context, note: Note) -> None:
        if self.why is not None and note.text != "fine":
            raise self.why
        self.taken.append(len(note.text))


@pytest.fixture
def fussy(mesh: Mesh) -> Iterator[Fussy]:
    fussy = Fussy()
    worker = mesh.start(mesh.worker(fussy.service))
    yield fussy
    mesh.end(worker)


async def put(mesh: Mesh, control: Bus, tenant: str, *, headers_only: bool = False) -> None:
    """Store a command that leaves only `ROOM` of a limit; past the router, which would refuse."""
    headers = {"Tenant-Context": mesh.minter().mint(tenant, "business", "edge")}
    size = len(b"NATS/1.0\r\n\r\n") + sum(len(f"{n}: {v}\r\n") for n, v in headers.items())
    text = "x"
    if headers_only:
        headers["X-Own"] = "x" * (HEADERS - size - ROOM - len("X-Own: \r\n"))
    else:
        text = "x" * (LIMIT - size - ROOM - len('{"text":""}'))
    body = msgspec.json.encode({"text": text})
    await store(control, f"tenant.{tenant}.fussy.take", body, headers=headers)


async def only_letter(control: Bus, tenant: str) -> Letter:
    found: list[Letter] = []

    async def one() -> bool:
        found[:] = [each async for each in Letters(control).select(Selection(tenant=tenant))]
        return len(found) == 1

    await eventually(one)
    return found[0]


async def goes_on(program: Program, fussy: Fussy) -> None:
    """The tenant's next command is handled."""
    await program.client.publish("fussy.take", {"text": "fine"})

    async def handled() -> bool:
        return len("fine") in fussy.taken

    await eventually(handled)


async def test_a_letter_that_does_not_fit_is_written_without_the_body(
    mesh: Mesh, control: Bus, fussy: Fussy, acme: Program
) -> None:
    fussy.why = RuntimeError("poor")
    await put(mesh, control, acme.id)
    letter = await only_letter(control, acme.id)
    assert (letter.about.reason, letter.about.cut, letter.body) == ("handler_failed", "body", b"")
    await goes_on(acme, fussy)


async def test_it_is_written_without_headers_that_do_not_fit(
    mesh: Mesh, control: Bus, fussy: Fussy, acme: Program
) -> None:
    fussy.why = RuntimeError("poor")
    await put(mesh, control, acme.id, headers_only=True)
    letter = await only_letter(control, acme.id)
    assert (letter.about.cut, letter.headers) == ("all", {})
    await goes_on(acme, fussy)


async def test_redriven_it_has_its_body_again(
    mesh: Mesh, control: Bus, fussy: Fussy, acme: Program
) -> None:
    fussy.why = RuntimeError("poor")
    await put(mesh, control, acme.id)
    letter = await only_letter(control, acme.id)
    fussy.why = None
    told: list[str] = []
    async with Redriver(control) as redriver:
        await redriver.redrive({acme.id: [letter.number]}, lambda each: told.append(each.result))
    assert told == ["redriven"]

    async def handled() -> bool:
        return any(size > LIMIT - 2 * HEADROOM for size in fussy.taken)

    await eventually(handled)


@pytest.mark.parametrize(
    "members",
    [{"tenant": "x"}, {"event": "x"}, {"code": "x"}, {"many": "x" * LIMIT}, {"o": object()}],
    ids=["tenant", "event", "code", "large", "object"],
)
async def test_members_of_a_rejection_do_not_keep_its_letter_from_being_written(
    control: Bus, fussy: Fussy, acme: Program, members: dict[str, object]
) -> None:
    """The log has fields of the same names."""
    fussy.why = errors.Hopeless("no" * LIMIT, **members)  # type: ignore[arg-type]
    await acme.client.publish("fussy.take", {"text": "x"})
    assert (await only_letter(control, acme.id)).about.reason == "hopeless"
    await goes_on(acme, fussy)


@pytest.mark.parametrize("most", [LIMIT - HEADROOM + 1, 10_000_000])
async def test_a_plan_that_nats_has_no_room_for_is_refused(mesh: Mesh, most: int) -> None:
    with pytest.raises(errors.BadMessage, match=f"max_body {most} is more than NATS takes"):
        await mesh.control("apply_plans", plans=[{"name": "huge", "max_body": most}])


async def test_an_override_that_nats_has_no_room_for_is_refused(mesh: Mesh, acme: Program) -> None:
    with pytest.raises(errors.BadMessage, match="max_body 10000000 is more than NATS takes"):
        await mesh.control("override", id=acme.id, override={"max_body": 10_000_000})
    await mesh.control("override", id=acme.id, override={"max_body": LIMIT - HEADROOM})


async def test_a_command_as_large_as_is_allowed_becomes_a_whole_letter(
    mesh: Mesh, control: Bus, fussy: Fussy
) -> None:
    plan = await mesh.plan("roomy", max_body=10_000_000)
    async with mesh.program(plan=plan) as program:
        text = "x" * (LIMIT - HEADROOM - len('{"text":""}'))
        fussy.why = RuntimeError("x" * 5_000)
        body, own = msgspec.json.encode({"text": text}), {"X-Own": "\u00e9" * 4_000}
        answer = await program.ask("fussy.take", body, headers=own)
        assert answer.json["stream"] == "JOURNAL"
        letter = await only_letter(control, program.id)
        assert (letter.about.cut, len(letter.body)) == ("", LIMIT - HEADROOM)
