"""`tenantry dead …`: what services gave up on, and what becomes of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from cyclopts import App, Group, Parameter

from tenantry.bus import Bus
from tenantry.cli import confirm, connection, known, loop, moment, output
from tenantry.cli.connection import Connection
from tenantry.cli.control import control
from tenantry.cli.options import Output
from tenantry.cli.progress import progress
from tenantry.cli.usage import UsageError, examples
from tenantry.errors import Rejection
from tenantry.letters import Letter, Letters, Selection
from tenantry.redrive import Outcome, Redriver
from tenantry.wire import headers as names
from tenantry.wire import trace

T = TypeVar("T")

_COLUMNS = ("number", "tenant", "service", "action", "reason", "attempts", "given up", "detail")
_DROPS = 16

app = App(
    name="dead",
    help="Dead letters: list and show what services gave up on, redrive it, or drop it.",
    help_epilogue=examples(
        "tenantry dead list --tenant acme --since 2h",
        "tenantry dead show 17",
        "tenantry dead redrive 17 18",
        "tenantry dead redrive --service ledger --reason handler_failed",
        "tenantry dead drop --tenant acme --until 2026-11-01 --yes",
    ),
)

Numbers = Annotated[int, Parameter(help="letters by number, as `list` shows it")]
Yes = Annotated[bool, Parameter(negative="", help="do not ask")]


@Parameter(name="*", group=Group("Which letters", sort_key=50))
@dataclass(frozen=True, kw_only=True)
class Which:
    """Filters: what is given must apply."""

    tenant: Annotated[str | None, Parameter(help="of this tenant")] = None
    service: Annotated[str | None, Parameter(help="that this service gave up on")] = None
    action: Annotated[str | None, Parameter(help="of this SERVICE.ACTION")] = None
    reason: Annotated[
        str | None, Parameter(help="given up for this, such as handler_failed, bad_message")
    ] = None
    since: Annotated[
        str | None, Parameter(help="given up then or later: 2h ago, or a date", metavar="T")
    ] = None
    until: Annotated[
        str | None, Parameter(help="given up before: 2h ago, or a date", metavar="T")
    ] = None

    def selection(self) -> Selection:
        """What the library makes of them. Raises what it raises for names that can't be."""
        now = time.time()
        selection = Selection(
            tenant=self.tenant,
            service=self.service,
            action=self.action,
            reason=self.reason,
            since=None if self.since is None else moment.parse_time(self.since, now),
            until=None if self.until is None else moment.parse_time(self.until, now),
        )
        selection.check()
        return selection

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return self != ALL


ALL = Which()


@app.command(
    name="list",
    help_epilogue=examples(
        "tenantry dead list",
        "tenantry dead list --tenant acme --service ledger --since 2h",
        "tenantry dead list --reason bad_context -o json | jq '.[].number'",
    ),
)
def list_(
    *, which: Which = ALL, form: Output = "table", at: Connection = connection.DEFAULT
) -> None:
    """List dead letters, in the order in which they were given up."""
    found = loop.run(_selected(at, which.selection()))
    if form == "json":
        output.json([_about(letter) for letter in found])
    else:
        output.table(_COLUMNS, [_row(letter) for letter in found])


@app.command(
    help_epilogue=examples("tenantry dead show 17", "tenantry dead show 17 -o json | jq .body")
)
def show(
    number: Annotated[int, Parameter(help="the letter, as `list` shows it")],
    /,
    *,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Show a dead letter: why and when, its headers without the context, its body."""

    async def get(letters: Letters) -> Letter:
        return await letters.get(number)

    letter = loop.run(_with(at, get))
    headers = {n: v for n, v in letter.headers.items() if n.lower() != names.CONTEXT.lower()}
    if form == "json":
        output.json({**_about(letter), "headers": headers, "body": _body(letter.body)})
        return
    about = letter.about
    output.line(f"letter        {letter.number} of {letter.tenant}")
    output.line(f"message       {about.seq} of the journal, {about.action}")
    times = "once" if about.attempts == 1 else f"{about.attempts} times"
    output.line(f"given up by   {about.service}, tried {times}")
    output.line(f"reason        {about.reason}: {about.detail}")
    for name in ("stored", "first_failed", "at"):
        label = "given up" if name == "at" else name.replace("_", " ")
        output.line(f"{label:<12}  {output.moment(getattr(about, name))}")
    if hop := trace.extract(letter.headers):
        output.line(f"trace         {hop.trace_id} (the service's log has more under it)")
    output.line("headers")
    for name, value in sorted(headers.items()):
        output.line(f"  {name}: {value}")
    if about.cut:
        output.line(f"body          not kept: too large for a letter; message {about.seq} has it")
        return
    output.line("body")
    body = _body(letter.body)
    text = body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
    output.line("  " + text.replace("\n", "\n  "))


@app.command(
    help_epilogue=examples(
        "tenantry dead redrive 17 18",
        "tenantry dead redrive --service ledger --since 2h --dry-run",
        "tenantry dead redrive --service ledger --since 2h --yes",
        "tenantry dead redrive 21 --principal ops    # its own context does not verify",
    )
)
def redrive(
    *numbers: Numbers,
    which: Which = ALL,
    principal: Annotated[
        str | None,
        Parameter(help="in whose name a letter goes whose own context does not verify"),
    ] = None,
    dry_run: Annotated[
        bool, Parameter(negative="", help="only say what would be redriven, and what refused")
    ] = False,
    yes: Yes = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> int:
    """Deliver dead letters once more, only to the service that gave each up.

    Those of a tenant go one after another, in the order of their numbers,
    behind what the service has not handled yet. Safe to repeat after a
    kill: what was redriven is not redriven again. The exit code is 1 where
    a letter could not be redriven; it stays.
    """
    if principal is not None and not principal.strip():
        raise UsageError("--principal is empty", hint="give a name, such as ops")
    chosen = _chosen(numbers, which, at)
    if dry_run:
        outcomes = loop.run(_check(at, chosen, principal))
        return _tell(outcomes, len(chosen), form, "would be ")
    if not yes and which.given:
        _confirm("Redrive", chosen)
    outcomes = loop.run(_redrive(at, chosen, principal))
    return _tell(outcomes, len(chosen), form)


@app.command(
    help_epilogue=examples(
        "tenantry dead drop 17", "tenantry dead drop --tenant acme --reason bad_message --yes"
    )
)
def drop(
    *numbers: Numbers,
    which: Which = ALL,
    yes: Yes = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> int:
    """Delete dead letters for good."""
    chosen = _chosen(numbers, which, at)
    if not yes and which.given:
        _confirm("Drop", chosen)
    outcomes = loop.run(_with(at, lambda letters: _drop(letters, chosen)))
    return _tell(outcomes, len(chosen), form)


# --- which ----------------------------------------------------------------------------------------


def _chosen(numbers: Sequence[int], which: Which, at: Connection) -> list[Letter]:
    """The letters that are meant, without their bodies. Raises before anything is done."""
    if bool(numbers) == which.given:
        raise UsageError(
            "which letters?" if not numbers else "numbers and filters exclude each other",
            hint="give numbers, or filters such as --tenant; `tenantry dead list` shows them",
        )
    if not numbers:
        return loop.run(_selected(at, which.selection()))

    async def get(letters: Letters) -> list[Letter]:
        return [await letters.get(number) for number in sorted(set(numbers))]

    return loop.run(_with(at, get))


async def _selected(at: Connection, which: Selection) -> list[Letter]:
    async with await at.connect("control") as bus:
        read = Letters(bus).select(which)
        found = [msgspec.structs.replace(letter, body=b"") async for letter in read]
        if not found:
            await _check_names(bus, which)
        return found


async def _check_names(bus: Bus, which: Selection) -> None:
    """Raise :class:`NotFound` for a name that is unknown; one that has left may have letters."""
    letters = Letters(bus)
    if which.tenant is not None:
        await known.check_tenant(bus, which.tenant)
    if which.service is not None and not await letters.any(Selection(service=which.service)):
        await known.check_service(bus, which.service)
    if which.action is not None and not await letters.any(Selection(action=which.action)):
        await known.check_action(bus, which.action)


async def _with(at: Connection, work: Callable[[Letters], Coroutine[Any, Any, T]]) -> T:
    async with await at.connect("control") as bus:
        return await work(Letters(bus))


def _confirm(verb: str, letters: Sequence[Letter]) -> None:
    if len(letters) < 2:
        return
    tenants = len({letter.tenant for letter in letters})
    question = f"{verb} {_count(len(letters))} of {tenants} tenant{'s' * (tenants > 1)}"
    confirm.yes(question)


# --- doing ----------------------------------------------------------------------------------------


async def _redrive(
    at: Connection, letters: Sequence[Letter], principal: str | None
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    tenants: dict[str, list[int]] = {}
    for letter in letters:
        tenants.setdefault(letter.tenant, []).append(letter.number)
    async with control(at) as mesh, Redriver(mesh.bus, principal=principal) as redriver:
        with progress("redriving", len(letters)) as tell:

            def told(outcome: Outcome) -> None:
                outcomes.append(outcome)
                tell(len(outcomes))

            await redriver.redrive(tenants, told)
    return outcomes


async def _check(at: Connection, letters: Sequence[Letter], principal: str | None) -> list[Outcome]:
    outcomes = []
    async with control(at) as mesh, Redriver(mesh.bus, principal=principal) as redriver:
        for each in letters:
            outcome = Outcome(number=each.number, tenant=each.tenant, result="redriven")
            try:
                redriver.check(each)
            except Rejection as error:
                outcome = msgspec.structs.replace(outcome, result="refused", why=str(error))
            outcomes.append(outcome)
    return outcomes


async def _drop(letters: Letters, chosen: Sequence[Letter]) -> list[Outcome]:
    gate, done = asyncio.Semaphore(_DROPS), itertools.count(1)
    with progress("dropping", len(chosen)) as tell:

        async def one(letter: Letter) -> Outcome:
            async with gate:
                dropped = await letters.drop(letter.number)
            tell(next(done))
            return Outcome(
                number=letter.number, tenant=letter.tenant, result="dropped" if dropped else "gone"
            )

        return list(await asyncio.gather(*(one(letter) for letter in chosen)))


# --- telling --------------------------------------------------------------------------------------


def _tell(outcomes: Sequence[Outcome], asked: int, form: output.Format, would: str = "") -> int:
    """Print what became of the letters; the exit code."""
    bad = [each for each in outcomes if each.result in {"refused", "failed"}]
    if form == "json":
        output.json(sorted(outcomes, key=lambda each: each.number))
    else:
        for each in bad:
            output.note(f"letter {each.number} of {each.tenant} {each.result}: {each.why}")
        counts: Mapping[str, int] = Counter(each.result for each in outcomes)
        parts = [f"{count} {would}{result}" for result, count in counts.items()]
        if left := asked - len(outcomes):
            parts.append(f"{left} left alone")
        output.line(", ".join(parts) or "no letter is meant")
    return 1 if bad else 0


def _about(letter: Letter) -> dict[str, Any]:
    return {
        "number": letter.number,
        "tenant": letter.tenant,
        **msgspec.structs.asdict(letter.about),
    }


def _row(letter: Letter) -> tuple[Any, ...]:
    about = letter.about
    return (
        letter.number,
        letter.tenant,
        about.service,
        about.action,
        about.reason,
        about.attempts,
        output.moment(about.at),
        about.detail,
    )


def _body(body: bytes) -> Any:
    """JSON as what it is, other text as text, the rest as what can be shown of it."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "backslashreplace")


def _count(letters: int) -> str:
    return f"{letters} dead letter{'s' * (letters != 1)}"
