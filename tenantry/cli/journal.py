"""`tenantry journal`: one tenant's messages, as the journal holds them."""

from __future__ import annotations

import base64
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from tenantry import catalogue, subjects
from tenantry.bus import Bus
from tenantry.bus.jetstream import StoredMessage
from tenantry.bus.scan import find_next
from tenantry.cli import connection, known, loop, moment, output
from tenantry.cli.connection import Connection
from tenantry.cli.moment import Point
from tenantry.cli.options import Follow, Last, Output, TenantId
from tenantry.cli.usage import UsageError, examples
from tenantry.journal import Selection, first_at, from_last, read
from tenantry.messages import Kind
from tenantry.service.service import RESERVED
from tenantry.streams import JOURNAL
from tenantry.wire import headers as names

app = App(
    name="journal",
    help="Read, export, import and erase one tenant's messages in the journal.",
    help_epilogue=examples(
        "tenantry journal acme                         # all, the oldest first",
        "tenantry journal acme --last 20 --service orders",
        "tenantry journal acme -f -o json | jq .body   # those to come",
        "tenantry journal acme --since 2h --action orders.placed --action orders.import",
        "tenantry journal read export                  # a tenant named like a command",
        "tenantry journal export acme acme.jsonl.gz",
    ),
)
app.command(
    "tenantry.cli.transfer:export",
    name="export",
    help_epilogue=examples(
        "tenantry journal export acme acme.jsonl.gz",
        "tenantry journal export acme lately.jsonl --since 2026-11-01",
    ),
)
app.command(
    "tenantry.cli.transfer:import_",
    name="import",
    help_epilogue=examples(
        "tenantry journal import acme.jsonl.gz --dry-run",
        "tenantry journal import acme.jsonl.gz",
        "tenantry journal import acme.jsonl.gz --as acme-test --deliver",
    ),
)
app.command(
    "tenantry.cli.erase:erase",
    name="erase",
    help_epilogue=examples(
        "tenantry tenants delete acme && tenantry journal erase acme",
        "tenantry journal erase acme --yes -o json",
    ),
)

_WIDTHS = (8, 24, 32, 8)
_PREVIEW = 100
_FOLLOWED = 10

Since = Annotated[str | None, Parameter(help=f"from here on: {moment.HELP}")]
Until = Annotated[str | None, Parameter(help=f"before this: {moment.HELP}")]
Count = Annotated[int | None, Parameter(validator=Number(gte=1), help="at most so many")]


@app.default
@app.command(name="read")
def read_(
    tenant: TenantId,
    /,
    *,
    service: Annotated[str | None, Parameter(help="only messages of this service")] = None,
    action: Annotated[
        Sequence[str], Parameter(help="only this SERVICE.ACTION; several may be given")
    ] = (),
    kind: Annotated[
        Literal["command", "event"] | None, Parameter(help="only these, as the catalogue knows")
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Count = None,
    last: Last = None,
    follow: Follow = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Show a tenant's messages in the journal, in their order.

    JSON is one object a line: the body as JSON where it is JSON, else in
    base64. Following alone begins with the last ten.
    """
    if follow and until is not None:
        raise UsageError("--follow has no end", hint="leave out --follow or --until")
    if limit is not None and last is not None:
        raise UsageError("--limit counts from the start, --last from the end", hint="give one")
    wanted = select(tenant, service, action)
    if follow and last is None and since is None:
        last = _FOLLOWED
    span = point(since), point(until)
    loop.run(_show(at, wanted, span, _Way(kind, limit, last, follow), form))


class _Way(msgspec.Struct, frozen=True):
    """How to go through the selected messages."""

    kind: Kind | None
    limit: int | None
    last: int | None
    follow: bool


def select(tenant: str, service: str | None, actions: Sequence[str]) -> Selection:
    """A checked selection. Raises :class:`~tenantry.errors.BadSubject`."""
    subjects.check_tenant(tenant)
    if service is not None:
        subjects.check_name(service, "service")
    for name in actions:
        if subjects.split_action(name)[0] != (service or name.partition(".")[0]):
            raise UsageError(f"{name} is no action of {service}", hint="leave out --service")
    return Selection(tenant=tenant, service=service or "", actions=tuple(actions))


def point(text: str | None) -> Point:
    """Where an option points, or nowhere."""
    return Point() if text is None else moment.parse(text)


async def limited(bus: Bus, wanted: Selection, since: Point, until: Point) -> Selection | None:
    """The selection between two points; None where nothing can lie there."""
    first, end = since.seq or 1, until.seq if until.seq is not None else 0
    if since.seq is not None and until.seq is not None and until.seq <= since.seq:
        raise UsageError(f"from {since.seq} until {until.seq} there is nothing")
    if since.time is not None:
        found = await first_at(bus, wanted.tenant, since.time)
        if found is None:
            return None
        first = found
    if until.time is not None:
        end = await first_at(bus, wanted.tenant, until.time) or 0
    elif until.seq == 0:
        return None
    return msgspec.structs.replace(wanted, since=first, until=end)


async def _check_names(bus: Bus, wanted: Selection) -> None:
    """Raise :class:`NotFound` for a service or action that neither catalogue nor journal knows."""
    if wanted.service and not await _stored(bus, f"{wanted.service}.*"):
        await known.check_service(bus, wanted.service)
    for name in wanted.actions:
        if not await _stored(bus, name):
            await known.check_action(bus, name)


async def _stored(bus: Bus, name: str) -> bool:
    """Whether the journal has any message, of any tenant, on `<service>.<action>`."""
    return await find_next(bus, JOURNAL, f"journal.*.*.{name}") is not None


async def _show(
    at: Connection,
    wanted: Selection,
    span: tuple[Point, Point],
    way: _Way,
    form: output.Format,
) -> None:
    async with await at.connect("control") as bus:
        await known.check_tenant(bus, wanted.tenant)
        await _check_names(bus, wanted)
        kinds = await _kinds(bus)
        chosen = await limited(bus, wanted, *span)
        if form == "table":
            _row("SEQ", "TIME", "ACTION", "SIZE", "BODY")
        if chosen is None:
            if not way.follow:
                return
            chosen = wanted  # what is to come was stored later than any time there is
        count = 0
        async for message in _messages(bus, chosen, kinds, way):
            _print(message, kinds, form)
            count += 1
            if count == way.limit:
                return


async def _messages(
    bus: Bus, wanted: Selection, kinds: dict[str, Kind], way: _Way
) -> AsyncIterator[StoredMessage]:
    if way.last is None:
        async for message in _of_kind(bus, wanted, kinds, way, follow=way.follow):
            yield message
        return
    if way.kind is None and len(wanted.actions) < 2 and not wanted.until:
        since = await from_last(bus, wanted, way.last)
        wanted = msgspec.structs.replace(wanted, since=since)
    kept: deque[StoredMessage] = deque(maxlen=way.last)
    async for message in _of_kind(bus, wanted, kinds, way, follow=False):
        kept.append(message)
    for message in kept:
        yield message
    if way.follow:
        since = kept[-1].seq + 1 if kept else wanted.since
        rest = msgspec.structs.replace(wanted, since=since)
        async for message in _of_kind(bus, rest, kinds, way, follow=True):
            yield message


async def _of_kind(
    bus: Bus, wanted: Selection, kinds: dict[str, Kind], way: _Way, *, follow: bool
) -> AsyncIterator[StoredMessage]:
    patience = float("inf") if follow else 30.0
    async for message in read(bus, wanted, follow=follow, patience=patience):
        if way.kind is None or _kind(_name(message), kinds) == way.kind:
            yield message


async def _kinds(bus: Bus) -> dict[str, Kind]:
    """What the catalogue says each `<service>.<action>` is."""
    return {
        f"{each.service}.{action.name}": action.kind
        for each in await catalogue.declarations(bus)
        for action in each.actions
    }


def _kind(name: str, kinds: dict[str, Kind]) -> Kind | None:
    """What a message is; the platform's own services, which only emit, are in no catalogue."""
    return kinds.get(name) or ("event" if name.partition(".")[0] in RESERVED else None)


def _name(message: StoredMessage) -> str:
    return subjects.parse_stored(message.subject).name


def _print(message: StoredMessage, kinds: dict[str, Kind], form: output.Format) -> None:
    if form == "json":
        sys.stdout.buffer.write(msgspec.json.encode(record(message, kinds)) + b"\n")
        sys.stdout.flush()
        return
    time = output.moment(message.time).removesuffix("Z") + f".{int(message.time * 1000) % 1000:03}"
    size = len(message.data)
    _row(message.seq, time, _name(message), size, _preview(message.data))


def _row(*cells: object) -> None:
    seq, time, name, size, body = cells
    a, b, c, d = _WIDTHS
    output.line(f"{seq!s:>{a}}  {time!s:<{b}}{name!s:<{c}}{size!s:>{d}}  {body}".rstrip())


def _preview(body: bytes) -> str:
    """The begin of a body, in one line that a terminal can show."""
    text = body[: 4 * _PREVIEW].decode(errors="replace")[:_PREVIEW]
    shown = "".join(each if each.isprintable() else "\N{MIDDLE DOT}" for each in text)
    return shown + ("…" if len(body) > len(text.encode(errors="replace")) else "")


def record(message: StoredMessage, kinds: dict[str, Kind]) -> dict[str, Any]:
    """A message as JSON says it."""
    address = subjects.parse_stored(message.subject)
    shown: dict[str, Any] = {
        "seq": message.seq,
        "time": message.time,
        "tenant": address.tenant,
        "service": address.service,
        "action": address.action,
        "kind": _kind(address.name, kinds),
        "id": message.headers.get(names.MSG_ID),
        "size": len(message.data),
        # A context is a proof that its holder may act for the tenant: not for a screen.
        "headers": {key: text for key, text in message.headers.items() if key != names.CONTEXT},
    }
    try:
        msgspec.json.decode(message.data)
        shown["body"] = msgspec.Raw(msgspec.json.format(message.data, indent=-1))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        shown["body_base64"] = base64.b64encode(message.data).decode()
    return shown
