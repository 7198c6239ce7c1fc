"""From a message that a service gives up on to its redrive, through the real runtime."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest

from tenantry import Context, Retry, Service
from tenantry.bus import Bus
from tenantry.bus.jetstream import Delivery
from tenantry.bus.scan import find
from tenantry.delivery.dead_letters import DeadLetters
from tenantry.errors import HandlerFailed
from tenantry.letters import Letter, Letters, Selection
from tenantry.redrive import Outcome, Redriver
from tenantry.streams import JOURNAL
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import Note, Noted

QUICK = Retry(tries=2, first=0.01, most=0.01)
TAKE = "frail.take"
POOR = {"text": "poor"}


class Frail:
    """A service with a command that emits, and two followers; what they get fails if it is told to.

    What has come through is kept by tenant.
    """

    def __init__(self) -> None:
        self.service = Service("frail", retry=QUICK)
        self.taken = self.service.event("taken", Noted)
        self.service.command("take", public=True)(self.take)
        self.follower = Service("frail_ear", retry=QUICK)
        self.follower.on("frail.taken")(self.hear)
        self.other = Service("frail_other", retry=QUICK)
        self.other.on("frail.taken")(self.overhear)
        self.poison: set[str] = set()
        self.deaf: set[str] = set()
        self._handled: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._heard: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._overheard: dict[str, list[str]] = defaultdict(list)

    async def take(self, ctx: Context, note: Note) -> None:
        if note.text in self.poison:
            raise RuntimeError("poison")
        self._handled[ctx.tenant].append((note.text, ctx.message_id))
        ctx.emit(self.taken, Noted(note.text))

    async def hear(self, ctx: Context, event: Noted) -> None:
        if event.text in self.deaf:
            raise RuntimeError("deaf")
        self._heard[ctx.tenant].append((event.text, ctx.message_id))

    async def overhear(self, ctx: Context, event: Noted) -> None:
        self._overheard[ctx.tenant].append(event.text)

    async def handled(self, program: Program, *texts: str) -> None:
        """Return when these have been handled, in this order, and nothing else."""
        await eventually(lambda: _is([text for text, _ in self._handled[program.id]], texts))

    async def heard(self, program: Program, *texts: str) -> None:
        """The same of the follower that fails."""
        await eventually(lambda: _is([text for text, _ in self._heard[program.id]], texts))

    async def overheard(self, program: Program, *texts: str) -> None:
        """The same of the follower that does not."""
        await eventually(lambda: _is(self._overheard[program.id], texts))

    def ids(self, program: Program) -> list[str]:
        """The message ids that the command and the follower have seen."""
        return [each for _, each in (*self._handled[program.id], *self._heard[program.id])]


@pytest.fixture(scope="module")
def running(mesh: Mesh) -> Iterator[Frail]:
    frail = Frail()
    worker = mesh.start(mesh.worker(frail.service, frail.follower, frail.other))
    yield frail
    mesh.end(worker)


@pytest.fixture
def frail(running: Frail) -> Frail:
    running.poison, running.deaf = set(), set()
    return running


async def send(program: Program, *texts: str) -> list[int]:
    return [(await program.client.publish(TAKE, {"text": text})).seq for text in texts]


async def letters(control: Bus, tenant: str, count: int) -> list[Letter]:
    """The tenant's dead letters, once there are so many."""
    found: list[Letter] = []

    async def enough() -> bool:
        found[:] = [each async for each in Letters(control).select(Selection(tenant=tenant))]
        return len(found) >= count

    await eventually(enough)
    assert len(found) == count
    return found


async def redrive(control: Bus, found: list[Letter]) -> list[Outcome]:
    told: list[Outcome] = []
    async with Redriver(control) as redriver:
        await redriver.redrive({found[0].tenant: [each.number for each in found]}, told.append)
    return told


async def test_a_poison_message_becomes_a_letter_and_the_rest_goes_on(
    control: Bus, frail: Frail, acme: Program
) -> None:
    frail.poison = {"bad"}
    seqs = await send(acme, "one", "bad", "two")
    (letter,) = await letters(control, acme.id, 1)
    about = letter.about
    assert (about.reason, about.attempts) == ("handler_failed", 2)
    assert (about.service, about.action, about.seq) == ("frail", TAKE, seqs[1])
    assert about.stored <= about.first_failed <= about.at
    await frail.handled(acme, "one", "two")


async def test_what_can_never_succeed_becomes_one_at_once(
    control: Bus, frail: Frail, acme: Program
) -> None:
    await acme.client.publish(TAKE, {"text": 7})
    (letter,) = await letters(control, acme.id, 1)
    assert (letter.about.reason, letter.about.attempts) == ("bad_message", 1)
    assert letter.body == b'{"text":7}'


async def test_mended_and_redriven_it_is_handled_once(
    control: Bus, frail: Frail, acme: Program
) -> None:
    frail.poison = {"bad"}
    await send(acme, "one", "bad", "two")
    found = await letters(control, acme.id, 1)
    await frail.handled(acme, "one", "two")
    frail.poison = set()
    assert [each.result for each in await redrive(control, found)] == ["redriven"]
    await send(acme, "after")
    await frail.handled(acme, "one", "two", "bad", "after")
    assert await letters(control, acme.id, 0) == []


async def test_redriven_letters_keep_their_order(control: Bus, frail: Frail, acme: Program) -> None:
    bad = [f"bad{each}" for each in range(10)]
    frail.poison = set(bad)
    await send(acme, *bad)
    found = await letters(control, acme.id, len(bad))
    frail.poison = set()
    await redrive(control, found)
    await frail.handled(acme, *bad)


async def test_not_mended_it_dies_again_and_keeps_its_id(
    control: Bus, frail: Frail, acme: Program
) -> None:
    frail.poison = {"bad"}
    (seq,) = await send(acme, "bad")
    first = await letters(control, acme.id, 1)
    await redrive(control, first)

    async def again() -> bool:
        found = [each async for each in Letters(control).select(Selection(tenant=acme.id))]
        return bool(found) and found[0].number != first[0].number

    await eventually(again)
    second = await letters(control, acme.id, 1)
    assert second[0].about.seq > seq
    frail.poison = set()
    await redrive(control, second)
    await frail.handled(acme, "bad")
    assert frail.ids(acme)[0] == f"journal:{seq}"


async def test_a_followers_letter_reaches_that_follower_only(
    control: Bus, frail: Frail, acme: Program
) -> None:
    frail.deaf = {"shout"}
    await send(acme, "shout", "whisper")
    (letter,) = found = await letters(control, acme.id, 1)
    assert (letter.about.service, letter.about.action) == ("frail_ear", "frail.taken")
    frail.deaf = set()
    await redrive(control, found)
    await send(acme, "last")
    await frail.heard(acme, "whisper", "shout", "last")
    await frail.overheard(acme, "shout", "whisper", "last")


async def test_a_followers_message_keeps_its_id(control: Bus, frail: Frail, acme: Program) -> None:
    frail.deaf = {"shout"}
    await send(acme, "shout")
    found = await letters(control, acme.id, 1)
    (event,) = await journal(control, acme.id, "frail.taken")
    frail.deaf = set()
    await redrive(control, found)
    await frail.heard(acme, "shout")
    assert frail.ids(acme)[-1] == event.headers["Nats-Msg-Id"]


async def test_a_redriven_command_emits_once(control: Bus, frail: Frail, acme: Program) -> None:
    frail.poison = {"bad"}
    await send(acme, "bad")
    found = await letters(control, acme.id, 1)
    frail.poison = set()
    await redrive(control, found)
    await frail.overheard(acme, "bad")
    assert len(await journal(control, acme.id, "frail.taken")) == 1


async def test_a_dropped_letter_never_comes_back(control: Bus, frail: Frail, acme: Program) -> None:
    frail.poison = {"bad"}
    await send(acme, "bad")
    (letter,) = await letters(control, acme.id, 1)
    frail.poison = set()
    assert await Letters(control).drop(letter.number)
    await send(acme, "after")
    await frail.handled(acme, "after")
    assert await letters(control, acme.id, 0) == []


async def test_a_late_repeat_of_the_hand_over_lays_nothing_down(
    control: Bus, insider: Bus, acme: Program
) -> None:
    """As by a worker that was killed before it could note that it has given up."""
    found = await find(control, JOURNAL, (await acme.client.publish("notes.remember", POOR)).seq)
    assert found is not None
    delivery = Delivery(2, found.seq, found.time, 0)
    hand_over = DeadLetters(insider, "notes")
    for _ in range(2):
        await hand_over.write(found, delivery, HandlerFailed("poor"))
    (letter,) = await letters(control, acme.id, 1)
    await Letters(control).drop(letter.number)
    await hand_over.write(found, delivery, HandlerFailed("poor"))
    assert await letters(control, acme.id, 0) == []


async def test_an_event_tells(control: Bus, frail: Frail, acme: Program) -> None:
    frail.poison = {"bad"}
    await send(acme, "bad")
    (letter,) = await letters(control, acme.id, 1)

    async def told() -> bool:
        found = await journal(control, acme.id, "tenants.message_dead")
        ids = [entry.headers["Nats-Msg-Id"] for entry in found]
        return ids == [f"{acme.id}.d.{letter.number}"]

    await eventually(told)


async def _is(found: Sequence[object], wanted: Sequence[object]) -> bool:
    return list(found) == list(wanted)
