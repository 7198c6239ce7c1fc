"""How often a stored message is tried, and what becomes of one that never succeeds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from tenantry import Context, Retry, Service, errors
from tenantry.bus import Bus, api, store
from tenantry.letters import Letter, Letters, Selection
from tenantry.subjects import stored_of
from tests.mesh import Mesh, Program, eventually
from tests.services import Note, Texts, remember, texts

QUICK = Retry(tries=3, first=0.05, most=0.1)


class WrongDay(Exception):
    """An error of the author's own that no retry helps."""

    retry = False


Act = Callable[[Context, Note], None]


class Trial:
    """Runs what a test wants to happen, and counts the tries of each text."""

    def __init__(self, name: str, **options: object) -> None:
        service = self.service = Service(name, version="1.0.0", retry=QUICK)
        self.tries: list[str] = []
        self.wrong: dict[str, Exception] = {}
        service.command("run", public=True, **options)(self.run)  # type: ignore[arg-type]
        service.request("texts", public=True)(texts)

    async def run(self, ctx: Context, note: Note) -> None:
        """Fail as planned, else remember."""
        self.tries.append(note.text)
        if note.text in self.wrong:
            raise self.wrong[note.text]
        await remember(ctx, note)


@pytest.fixture
async def trial(mesh: Mesh, request: pytest.FixtureRequest) -> AsyncIterator[Trial]:
    options = getattr(request, "param", {})
    name = request.node.name.removeprefix("test_").split("[")[0][:40].rstrip("_")
    trial = Trial(name, **options)
    running = mesh.start(mesh.worker(trial.service))
    yield trial
    await running.stop()


async def send(program: Program, trial: Trial, *notes: str) -> None:
    for note in notes:
        await program.client.publish(f"{trial.service.name}.run", {"text": note})


async def letters(control: Bus, program: Program, service: str) -> list[Letter]:
    which = Selection(tenant=program.id, service=service)
    return [letter async for letter in Letters(control).select(which)]


async def _remembers(program: Program, trial: Trial, *wanted: str) -> bool:
    return await program.texts(trial.service.name) == list(wanted)


async def one_letter(control: Bus, program: Program, trial: Trial) -> Letter:
    name = trial.service.name

    async def there() -> bool:
        return len(await letters(control, program, name)) == 1

    await eventually(there)
    (letter,) = await letters(control, program, name)
    return letter


async def test_after_the_last_try_a_message_is_a_dead_letter(
    acme: Program, trial: Trial, control: Bus
) -> None:
    trial.wrong["x"] = RuntimeError("broken")
    await send(acme, trial, "x")
    letter = await one_letter(control, acme, trial)
    assert trial.tries == ["x"] * 3
    assert (letter.about.reason, letter.about.attempts) == ("handler_failed", 3)
    assert "RuntimeError: broken" in letter.about.detail
    assert letter.about.action == f"{trial.service.name}.run"
    assert letter.about.first_failed <= letter.about.at


async def test_what_comes_after_it_goes_on(acme: Program, trial: Trial, control: Bus) -> None:
    trial.wrong["x"] = RuntimeError("broken")
    await send(acme, trial, "a", "x", "b", "c")
    await eventually(lambda: _remembers(acme, trial, "a", "b", "c"))
    assert trial.tries == ["a", "x", "x", "x", "b", "c"]
    await one_letter(control, acme, trial)


@pytest.mark.parametrize(
    "error",
    [WrongDay("no"), errors.Hopeless("no"), errors.BadMessage("no"), errors.NotAllowed("no")],
    ids=lambda error: type(error).__name__,
)
async def test_what_no_retry_helps_is_not_tried_again(
    acme: Program, trial: Trial, control: Bus, error: Exception
) -> None:
    trial.wrong["x"] = error
    await send(acme, trial, "x")
    letter = await one_letter(control, acme, trial)
    assert trial.tries == ["x"]
    assert letter.about.attempts == 1


@pytest.mark.parametrize(
    "trial", [{"retry": Retry(tries=9, first=0.05, never=(ZeroDivisionError,))}], indirect=True
)
async def test_a_handler_may_name_errors_that_are_never_retried(
    acme: Program, trial: Trial, control: Bus
) -> None:
    trial.wrong["x"] = ZeroDivisionError()
    await send(acme, trial, "x")
    await one_letter(control, acme, trial)
    assert trial.tries == ["x"]


@pytest.mark.parametrize("trial", [{"retry": Retry(tries=1)}], indirect=True)
async def test_a_handler_may_be_tried_once_only(acme: Program, trial: Trial, control: Bus) -> None:
    trial.wrong["x"] = RuntimeError()
    await send(acme, trial, "x", "y")
    await one_letter(control, acme, trial)
    await eventually(lambda: _remembers(acme, trial, "y"))
    assert trial.tries == ["x", "y"]


async def test_a_forged_context_is_a_dead_letter_and_is_never_handled(
    acme: Program, trial: Trial, control: Bus, insider: Bus
) -> None:
    subject = f"tenant.{acme.id}.{trial.service.name}.run"
    await store(insider, subject, b'{"text": "x"}', headers={"Tenant-Context": "forged"})
    letter = await one_letter(control, acme, trial)
    assert letter.about.reason == "bad_context"
    assert trial.tries == []


async def test_a_body_that_does_not_fit_is_a_dead_letter(
    mesh: Mesh, acme: Program, trial: Trial, control: Bus, insider: Bus
) -> None:
    token = mesh.minter().mint(acme.id, "business", "test")
    subject = f"tenant.{acme.id}.{trial.service.name}.run"
    fields = {"Tenant-Context": token, "X-Own": "kept", "Nats-Msg-Id": f"{acme.id}.own"}
    await store(insider, subject, b'{"text": 5}', headers=fields)
    letter = await one_letter(control, acme, trial)
    assert (letter.about.reason, letter.body) == ("bad_message", b'{"text": 5}')
    assert letter.headers["X-Own"] == "kept"
    assert letter.headers["Nats-Msg-Id"] == f"{acme.id}.own"


@pytest.mark.parametrize("trial", [{"ordered": False}], indirect=True)
async def test_an_unordered_handler_that_fails_holds_nobody_up(
    acme: Program, trial: Trial, control: Bus
) -> None:
    trial.wrong["x"] = RuntimeError()
    await send(acme, trial, "x", "a")
    await one_letter(control, acme, trial)
    await eventually(lambda: _remembers(acme, trial, "a"))
    assert sorted(trial.tries) == ["a", "x", "x", "x"]
    assert trial.tries.index("a") < 3


async def test_a_message_for_another_service_alone_is_passed_over(
    mesh: Mesh, acme: Program, trial: Trial, insider: Bus
) -> None:
    token = mesh.minter().mint(acme.id, "business", "test")
    subject = f"tenant.{acme.id}.{trial.service.name}.run"
    for text, only in (("a", "another"), ("b", trial.service.name), ("c", "-")):
        fields = {"Tenant-Context": token, "Tenant-Only": only}
        await store(insider, subject, b'{"text": "%s"}' % text.encode(), headers=fields)
    await send(acme, trial, "d")
    await eventually(lambda: _remembers(acme, trial, "b", "d"))


async def test_a_handler_that_ignores_its_end_is_left_and_its_writes_do_not_count(
    mesh: Mesh, acme: Program
) -> None:
    stubborn = Service("stubborn", version="1.0.0", retry=QUICK)
    tries: list[int] = []
    refused: list[str] = []

    @stubborn.command("run", public=True, timeout=0.1)
    async def run(ctx: Context, note: Note) -> None:
        tries.append(1)
        if len(tries) > 1:
            await remember(ctx, note)
            return
        state = ctx.state
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(18)
        try:
            await state.put("texts", Texts(("late",)))
        except errors.TenantryError as error:
            refused.append(error.code)

    stubborn.request("texts", public=True)(texts)
    running = mesh.start(mesh.worker(stubborn))
    await acme.client.publish("stubborn.run", {"text": "x"})

    async def told() -> bool:
        return bool(refused)

    await eventually(told, within=40)
    assert refused == ["superseded"]
    assert await acme.texts("stubborn") == ["x"]
    await running.stop()


async def test_what_is_erased_while_it_waits_stops_nobody(
    acme: Program, trial: Trial, control: Bus
) -> None:
    trial.wrong["x"] = RuntimeError()
    slow = Retry(tries=100, first=0.5, most=0.5)
    object.__setattr__(trial.service.handlers["run"], "retry", slow)
    await send(acme, trial, "x", "y")

    async def failed() -> bool:
        return "x" in trial.tries

    await eventually(failed)
    await api(control, "STREAM.PURGE.JOURNAL", {"filter": stored_of(acme.id)})
    await send(acme, trial, "z")
    await eventually(lambda: _remembers(acme, trial, "z"))
