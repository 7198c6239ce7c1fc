"""The contracts as files: `subjects.md` and `schemas/`, generated from the code.

What a shipped worker says is asked of the worker itself, through its entry point.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from tenantry import messages, subjects
from tenantry.context.claims import Claims
from tenantry.runtime.options import Runnable
from tenantry.service.service import Service

Writer = Callable[[Path], list[Path]]
"""Writes files below a folder and returns what has changed."""

WORKERS = "tenantry.workers"
"""The entry-point group of workers that ship as a whole."""

_BASES = {messages.Message, messages.TenantEvent}


class Row(NamedTuple):
    """One line of subjects.md."""

    subject: str
    kind: str
    message: str
    publisher: str
    consumers: str
    stream: str


_EDGE = (
    Row(
        "tenant.<tenant>.<service>.<action>",
        "request, command",
        "the action's input",
        "the tenant's programs",
        "router (imported as `edge.…`)",
        "",
    ),
    Row(
        "_INBOX.<tenant>.>",
        "answer",
        "the action's output, JetStream's PubAck, or Problem",
        "services, router, JetStream (imported from MESH)",
        "the tenant's programs",
        "",
    ),
)

_MESH = (
    Row(
        "edge.<tenant>.<service>.<action>",
        "request, command",
        "the action's input",
        "imported from EDGE",
        "router (queue group `router`)",
        "",
    ),
    Row(
        "request.<tenant>.<service>.<action>",
        "request",
        "the action's input",
        "router, services",
        "the service (queue group: its name)",
        "",
    ),
    Row(
        "tenant.<tenant>.<service>.<action>",
        "command, event",
        "the action's input",
        "router (commands), services (commands and their own events)",
        "the service, services that follow it",
        "JOURNAL",
    ),
    Row(
        "journal.<partition>.<tenant>.<service>.<action>",
        "stored",
        "the same, as JOURNAL keeps it",
        f"JOURNAL's transform, partition 0 to {subjects.PARTITIONS - 1} by tenant",
        "the service's instances, each the partitions that it owns (ephemeral pull consumers)",
        "JOURNAL",
    ),
    Row(
        "dead.<tenant>.<service>.<seq>",
        "dead letter",
        "the message, with DeadLetter in its headers",
        "the service that gave it up",
        "operators, tenants",
        "DEAD",
    ),
    Row(
        "schedule.<tenant>.<service>.<id>",
        "command for later",
        "the command's input, its name and time in headers",
        "the service that sends it",
        "tenants, when it is due; operators",
        "SCHEDULES",
    ),
    Row(
        "timer.<tenant>.<service>.<id>",
        "timer",
        "none: the time is in its headers (ADR-51)",
        "the service that sends it",
        "nats-server",
        "TIMERS",
    ),
    Row(
        "due.<tenant>.<service>.<id>",
        "timer",
        "none",
        "TIMERS, when the time has come",
        "tenants (pull consumer `tenants-schedules`)",
        "TIMERS",
    ),
    Row(
        "audit.<tenant or ->.<kind>",
        "refusal",
        "SecurityEvent",
        "router, services, tenants",
        "operators",
        "AUDIT",
    ),
    Row("_MESH.<user key>.>", "answer", "any", "any worker", "that user's connections", ""),
    Row(
        "platform.alive.<service>",
        "heartbeat",
        "Alive",
        "each instance, every second",
        "routers, the service's replicas",
        "",
    ),
    Row(
        "platform.gone.<service>",
        "heartbeat",
        "Alive",
        "an instance that stops",
        "routers, the service's replicas",
        "",
    ),
    Row(
        "platform.released.<service>.<partition>",
        "nudge",
        "empty",
        "an instance that hands a partition over",
        "the service's other instances",
        "",
    ),
    Row("platform.signing_keys", "nudge", "empty", "operators", "tenants: every replica", ""),
    Row(
        "platform.disconnects",
        "server event",
        "io.nats.server.advisory.v1.client_disconnect",
        "nats-server (imported from SYS)",
        "routers",
        "",
    ),
    Row(
        "$SRV.PING, $SRV.INFO, $SRV.STATS [.<service>[.<instance>]]",
        "discovery",
        "io.nats.micro.v1.*_response",
        "operators; routers and services PING",
        "every instance",
        "",
    ),
    Row(
        "platform.erased",
        "order",
        "Erasure → InHand",
        "operators",
        "services: every instance",
        "",
    ),
    Row(
        "stats.tenants",
        "figures",
        "TallyAsk → Tallies",
        "operators",
        "routers, services: every instance",
        "",
    ),
    Row("$KV.tenants.<tenant>", "record", "Tenant", "tenants", "routers, tenants", "KV_tenants"),
    Row("$KV.plans.<plan>", "record", "Plan", "tenants, operators", "routers", "KV_plans"),
    Row(
        "$KV.catalogue.<service>.<version>",
        "record",
        "Declaration",
        "services",
        "routers, services, the CLI",
        "KV_catalogue",
    ),
    Row("$KV.keys.context.<key id>", "record", "VerifyKey", "tenants, operators", "all", "KV_keys"),
    Row(
        "$KV.volumes.<tenant>, $KV.volumes.journal.progress",
        "record",
        "Volume, VolumeProgress",
        "tenants",
        "routers, tenants",
        "KV_volumes",
    ),
    Row(
        "$KV.state.<tenant>.<service>.<name>, $KV.state.<tenant>.<service>./<generation>.<name>",
        "record",
        "the service's own",
        "the service",
        "the service",
        "KV_state",
    ),
    Row(
        "$KV.cursors.<service>.<tenant>",
        "record",
        "Cursor",
        "the service, operators",
        "the service, operators",
        "KV_cursors",
    ),
    Row(
        "$KV.checkpoints.<service>.<partition>",
        "record",
        "Checkpoint",
        "the partition's owner; operators, when they erase a tenant",
        "the service's instances, operators",
        "KV_checkpoints",
    ),
    Row(
        "$KV.leases.<service>.<lease>",
        "record",
        "Lease",
        "each instance, every second",
        "the service's other instances, operators",
        "KV_leases",
    ),
    Row(
        "$KV.replays.<service>.<tenant>",
        "record",
        "Replay",
        "operators, the service",
        "the service, operators",
        "KV_replays",
    ),
    Row(
        "$KV.suspended.<tenant>",
        "record",
        "Suspension",
        "tenants",
        "services",
        "KV_suspended",
    ),
    Row(
        "$KV.redrives.<tenant>.<number>",
        "record",
        "Redrive",
        "operators",
        "operators",
        "KV_redrives",
    ),
)

_SYS = (
    Row("$SYS.REQ.CLAIMS.UPDATE", "request", "account JWT", "tenants", "nats-server", ""),
    Row(
        "$SYS.ACCOUNT.<EDGE>.CONNECT, $SYS.ACCOUNT.<EDGE>.DISCONNECT",
        "server event",
        "io.nats.server.advisory.v1.client_connect, …_disconnect",
        "nats-server",
        "tenants",
        "",
    ),
    Row(
        "$SYS.SERVER.<id>.CLIENT.AUTH.ERR",
        "server event",
        "io.nats.server.advisory.v1.client_disconnect",
        "nats-server",
        "tenants",
        "",
    ),
    Row(
        "$SYS.REQ.SERVER.PING, $SYS.REQ.SERVER.<id>.CONNZ, $SYS.REQ.SERVER.<id>.KICK",
        "request",
        "JSON of nats-server",
        "tenants",
        "nats-server",
        "",
    ),
)


def shipped() -> dict[str, Service]:
    """What every installed worker declares, by the worker's name."""
    found = {}
    for point in sorted(entry_points(group=WORKERS), key=lambda point: point.name):
        found[point.name] = cast("type[Runnable]", point.load()).declared()
    return found


def subjects_page() -> str:
    """The text of subjects.md."""
    lines = [
        "# Subjects",
        "",
        "Generated by `tenantry subjects --write`; a test holds it against the code. The grammar",
        "of ids and names is in `tenantry/subjects.py`, the messages' schemas are in `schemas/`.",
        "",
        "`<tenant>` is a DNS label (`[a-z0-9]` and inner `-`, at most 63), `<service>` and",
        "`<action>` are `[a-z][a-z0-9_]*`, at most 63.",
    ]
    lines += _table("Account EDGE: tenants' programs", _EDGE)
    lines += _table("Account MESH: the workers", _MESH)
    for name, service in shipped().items():
        lines += _table(f"`platform.{service.name}.*`: the {name} worker", _requests(service))
        if service.events:
            lines += _table(f"Events by the {name} worker", _events(service))
    lines += _table("Account SYS: the control plane", _SYS)
    return "\n".join(lines) + "\n"


def schemas() -> dict[str, str]:
    """File name and text of the JSON Schema of every message that Tenantry itself defines."""
    kinds: list[type[Any]] = [Claims]
    kinds += [
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, messages.Message) and kind not in _BASES
    ]
    files = {}
    for kind in kinds:
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:tenantry:schema:{kind.__name__}",
            **_dedented(msgspec.json.schema(kind)),
        }
        text = msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2)
        files[f"{kind.__name__}.json"] = text.decode() + "\n"
    return files


def _dedented(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with plain descriptions: older versions of msgspec keep a docstring's indent."""
    for each in schema["$defs"].values():
        if "description" in each:
            each["description"] = inspect.cleandoc(each["description"])
    return schema


def write_subjects(folder: Path) -> list[Path]:
    """Write subjects.md; returns what has changed."""
    return _write({folder / "subjects.md": subjects_page()})


def write_schemas(folder: Path) -> list[Path]:
    """Write `schemas/`, without what is not a message any more; returns what has changed."""
    place = folder / "schemas"
    place.mkdir(exist_ok=True)
    wanted = {place / name: text for name, text in schemas().items()}
    stale = [path for path in place.glob("*.json") if path not in wanted]
    for path in stale:
        path.unlink()
    return _write(wanted) + stale


def _write(files: dict[Path, str]) -> list[Path]:
    changed = []
    for path, text in files.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def _requests(service: Service) -> list[Row]:
    return [
        Row(
            subjects.platform(service.name, handler.action),
            "request",
            f"{handler.input.__name__} → {handler.output.__name__}",
            "services" if service.name == "router" else "operators, the CLI",
            f"{service.name} (queue group `{service.name}`)",
            "",
        )
        for handler in service.handlers.values()
    ]


def _events(service: Service) -> list[Row]:
    return [
        Row(
            f"tenant.<tenant>.{service.name}.{event.name}",
            "event",
            event.type.__name__,
            service.name,
            "any service that follows it",
            "JOURNAL",
        )
        for event in service.events.values()
    ]


def _table(title: str, rows: Any) -> list[str]:
    lines = ["", f"## {title}", "", "| subject | kind | message | publisher | consumers | stream |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        subject = ", ".join(f"`{part.strip()}`" for part in row.subject.split(", "))
        lines.append(f"| {' | '.join([subject, *row[1:]])} |")
    return lines
