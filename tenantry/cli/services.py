"""`tenantry services`: what the catalogue knows, and what answers now."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from tenantry import catalogue, subjects
from tenantry.bus import Bus, Message
from tenantry.cli import connection, lags, loop, output
from tenantry.cli.connection import Connection
from tenantry.cli.options import Output
from tenantry.cli.usage import UsageError
from tenantry.messages import ActionInfo, Declaration

_WAIT = 0.5

_ABOUT = ("service", "version", "running", "action", "kind", "public", "handled", "errors")


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One action with its counts over all instances that answer."""

    name: str
    kind: str
    public: bool = False
    description: str = ""
    timeout: float | None = None
    handled: int = 0
    errors: int = 0
    average_ms: float = 0.0
    last_error: str = ""
    input: dict[str, Any] = {}
    output: dict[str, Any] = {}
    warning: str = ""
    """Why it can do nothing: a follower of what nobody declares."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a service."""

    service: str
    version: str
    description: str = ""
    platform: bool = False
    instances: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    unknown: dict[str, int] = {}
    """Counts of the actions that its handlers named and no service declares so, by name."""


class _Endpoint(msgspec.Struct, frozen=True):
    name: str
    subject: str = ""
    metadata: dict[str, str] = {}
    num_requests: int = 0
    num_errors: int = 0
    last_error: str = ""
    processing_time: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What $SRV.INFO and $SRV.STATS answer with (ADR-32)."""

    name: str
    id: str
    version: str
    description: str = ""
    metadata: dict[str, str] = {}
    endpoints: tuple[_Endpoint, ...] = ()


_decode = msgspec.json.Decoder(Answer).decode
Key = tuple[str, str]


def services(
    name: Annotated[str | None, Parameter(help="only this service, with its schemas")] = None,
    /,
    *,
    lag: Annotated[
        bool, Parameter(negative="", help="instead, what waits in the journal for each service")
    ] = False,
    partitions: Annotated[
        bool, Parameter(negative="", help="with --lag: each partition, with its owner")
    ] = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Show the services of the mesh: versions, running instances, actions and counts.

    A service that has run but of which no instance answers is shown with
    none running. JSON, and a NAME, give the schemas in full. A WARNING tells
    of an event that is followed and that no service declares, and of an action
    that handlers named and that is not there: what they sent was refused.

    With --lag: the instances that may read the journal, the messages that no
    instance has read yet, those that one has in hand, the tenants that are
    sidelined (for a retry, a backlog or a replay of theirs), the age of the
    oldest message that waits, and the dead letters.

    With --lag --partitions: the same for each of the 16 partitions, with the
    lease of the instance that owns it, how long ago it was renewed, how far
    the partition was read, and up to where everything is settled.
    `tenantry tenants show TENANT` tells the lag of one tenant.
    """
    if partitions and not lag:
        raise UsageError("--partitions belongs to --lag", hint="give both")
    if lag:
        lags.show(at, name, form, partitions=partitions)
        return
    found = loop.run(_look(at))
    if name is not None:
        found = [each for each in found if each.service == name]
        if not found:
            raise catalogue.unknown(name)
    if form == "json":
        output.json(found)
    elif name is not None:
        for each in found:
            _print_whole(each)
    else:
        output.table((*_ABOUT, "description"), [row for each in found for row in _rows(each)])


async def _look(at: Connection) -> list[Running]:
    async with await at.connect("control") as bus:
        infos, figures, known = await asyncio.gather(
            bus.gather("$SRV.INFO", wait=_WAIT),
            bus.gather("$SRV.STATS", wait=_WAIT),
            catalogue.declarations(bus),
        )
        return merge(known, _answers(infos), _answers(figures))


async def alive(bus: Bus) -> list[Answer]:
    """Return the answers of all services' instances to $SRV.PING."""
    return _answers(await bus.gather("$SRV.PING", wait=_WAIT))


async def infos(bus: Bus, service: str) -> list[Answer]:
    """What the instances of one service say of themselves."""
    return _answers(await bus.gather(f"$SRV.INFO.{service}", wait=_WAIT))


def _answers(messages: Iterable[Message]) -> list[Answer]:
    """What is decodable: others on the same NATS may speak the protocol too."""
    found = []
    for message in messages:
        try:
            found.append(_decode(message.data))
        except msgspec.MsgspecError:
            continue
    return found


def merge(
    known: Iterable[Declaration], infos: Iterable[Answer], figures: Iterable[Answer]
) -> list[Running]:
    """Put the catalogue and the answers together, in the order of names and versions."""
    declared = {(each.service, each.version): each for each in known}
    live: dict[Key, list[Answer]] = defaultdict(list)
    counts: dict[Key, dict[str, list[_Endpoint]]] = defaultdict(lambda: defaultdict(list))
    unknown: dict[Key, Counter[str]] = defaultdict(Counter)
    events = _events(declared.values())
    for info in infos:
        live[info.name, info.version].append(info)
    for answer in figures:
        unknown[answer.name, answer.version].update(_unknown(answer))
        for endpoint in answer.endpoints:
            counts[answer.name, answer.version][endpoint.name].append(endpoint)
    return [
        msgspec.structs.replace(
            _running(key, declared.get(key), live.get(key, []), counts[key], events),
            unknown=dict(unknown[key]),
        )
        for key in sorted(declared.keys() | live.keys(), key=_order)
    ]


def _order(key: Key) -> tuple[str, Any]:
    name, version = key
    return name, (subjects.is_version(version) and subjects.version_key(version), version)


def _running(
    key: Key,
    declared: Declaration | None,
    live: list[Answer],
    counts: dict[str, list[_Endpoint]],
    events: set[str],
) -> Running:
    if declared is None:
        actions = [_from_endpoint(each) for each in live[0].endpoints]
    else:
        actions = [_from_action(each) for each in declared.actions]
        actions += [_from_followed(each, events) for each in declared.follows]
    return Running(
        service=key[0],
        version=key[1],
        description=declared.description if declared else live[0].description,
        platform=declared is None,
        instances=tuple(sorted(each.id for each in live)),
        actions=tuple(_counted(each, counts) for each in actions),
    )


def _from_action(action: ActionInfo) -> Action:
    return Action(
        name=action.name,
        kind=action.kind,
        public=action.public,
        description=action.description,
        timeout=action.timeout if action.kind != "event" else None,
        input=action.input,
        output=action.output,
    )


def _from_followed(event: str, events: set[str]) -> Action:
    # The control plane's own events are in no catalogue.
    known = event in events or event.startswith("tenants.")
    warning = "" if known else "no service declares this event"
    return Action(name=f"on {event}", kind="follower", warning=warning)


def _events(known: Iterable[Declaration]) -> set[str]:
    """All events that are declared, as `<service>.<event>`."""
    return {
        f"{each.service}.{action.name}"
        for each in known
        for action in each.actions
        if action.kind == "event"
    }


def _unknown(answer: Answer) -> dict[str, int]:
    """Return the actions that the handlers of an instance named and that are not there."""
    try:
        return msgspec.json.decode(answer.metadata.get("unknown", "{}"), type=dict[str, int])
    except msgspec.MsgspecError:
        return {}


def _from_endpoint(endpoint: _Endpoint) -> Action:
    kind, public = endpoint.metadata.get("kind", "request"), endpoint.metadata.get("public")
    return Action(name=endpoint.name, kind=kind, public=public == "true")


def _counted(action: Action, counts: dict[str, list[_Endpoint]]) -> Action:
    name = action.name.replace(".", "_").replace(" ", "_")
    rows = counts.get(name, [])
    handled = sum(row.num_requests for row in rows)
    spent = sum(row.processing_time for row in rows)
    return msgspec.structs.replace(
        action,
        handled=handled,
        errors=sum(row.num_errors for row in rows),
        average_ms=round(spent / max(1, handled) / 1e6, 3),
        last_error=next((row.last_error for row in rows if row.last_error), ""),
    )


def _rows(service: Running) -> list[tuple[Any, ...]]:
    head = (service.service, service.version, len(service.instances) or "none")
    actions = service.actions or (Action(name="", kind=""),)
    rows: list[tuple[Any, ...]] = [
        (
            *head,
            action.name,
            action.kind,
            action.public,
            "" if action.kind == "event" else action.handled,
            "" if action.kind == "event" else action.errors,
            f"WARNING: {action.warning}" if action.warning else action.description,
        )
        for action in actions
    ]
    why = "WARNING: its handlers send or ask for this, and no service declares it so"
    rows += [
        (*head, name, "unknown", "", "", count, why) for name, count in service.unknown.items()
    ]
    return rows


def _print_whole(service: Running) -> None:
    running = f"{len(service.instances)} running" if service.instances else "none running"
    output.line(f"{service.service} {service.version}, {running}: {service.description}")
    for name, count in service.unknown.items():
        output.line(
            f"WARNING: {count} times its handlers named {name}, which no service declares so"
        )
    for action in service.actions:
        open_to = "public" if action.public else "inside the mesh only"
        output.line(f"\n{action.kind} {action.name} ({open_to}): {action.description}")
        if action.kind != "event":
            output.line(
                f"  handled {action.handled}, errors {action.errors}, "
                f"average {action.average_ms:g} ms"
            )
        if action.warning:
            output.line(f"  WARNING: {action.warning}")
        if action.last_error:
            output.line(f"  last error: {action.last_error}")
        for side, schema in (("input", action.input), ("output", action.output)):
            if schema:
                text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
                output.line(f"  {side}: {text}".replace("\n", "\n  "))
