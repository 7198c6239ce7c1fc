"""What the oracle judges: what was sent, and all that JetStream holds afterwards.

Read through plain nats-py, with nothing of the mesh: neither its code nor its word for it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from chaos.book import BEGINNINGS, Beginning
from chaos.checkpoints import Unsettled, by_checkpoints

LINES = {"do": "chaos", "done": "echo", "late": "chaos", "loose": "chaos", "bare": "chaos"}
"""What the journal holds of the service `chaos`, by action, and which service handles it."""

STORED = (*LINES, "bared")
"""The same, with the event that nobody follows."""

WRITTEN = ("do", "done", "late", "loose")
"""The lines whose handlers write their effects down."""

COUNTED = ("do", "done", "late")
"""The lines whose handlers count what they handle."""

_BATCH = 500
_SILENT = 3


class Key(NamedTuple):
    """Which message of a tenant: its producer, and that one's count."""

    producer: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A command that its producer has seen acknowledged, as message `seq` of the journal."""

    tenant: str
    key: Key
    kind: str
    seq: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of the journal: a producer's command, or what a handled one has left.

    `tenant` is what the subject says, `named` what the body says.
    """

    seq: int
    tenant: str
    named: str
    key: Key
    kind: str
    at: float
    """When it was stored, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A row of a book. `tenant` is whose book it is, `named` what the message's body said."""

    tenant: str
    named: str
    key: Key
    pid: int


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter; `seq` is that of the journal, as its subject says, `told` as its header."""

    tenant: str
    service: str
    seq: int
    told: int
    named: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """A beginning of a killer, written down by the process `pid` that it was about to end."""

    tenant: str
    key: Key
    at: float
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything, after a run."""

    sent: list[Sent]
    stored: dict[str, list[Stored]]
    """What the journal holds, in its order, by line."""
    effects: dict[str, list[Effect]]
    """By line; those of one tenant in the order in which they happened, except for `loose`."""
    dead: list[Dead] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """By line and tenant, how many messages the handlers have counted."""
    begun: list[Begun] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    """By service and partition (a plain worker's: by consumer), how much is not settled."""
    replays: dict[str, str] = field(default_factory=dict)
    """`<service>.<tenant>` of the last replay of each, and its state."""
    behind: list[str] = field(default_factory=list)
    """`<service>.<tenant>` of each that is still sidelined."""


async def collect(client: Client, sent: list[Sent], folder: Path) -> Facts:
    """Read all of it; what processes have written down lies in `folder`."""
    effects, counts = await _state(client)
    left = await unsettled(client)
    return Facts(
        sent=sent,
        stored=await _journal(client),
        effects=effects,
        counts=counts,
        dead=await _dead(client),
        begun=_begun(folder / BEGINNINGS),
        waiting=left.waiting,
        replays=await replays(client),
        behind=left.sidelined,
    )


async def unsettled(client: Client) -> Unsettled:
    """What services have not settled: by their checkpoints, a plain worker's by its consumers."""
    records = {
        raw.subject.removeprefix("$KV.checkpoints."): json.loads(raw.data)
        async for raw in read(client, "KV_checkpoints", last=True)
        if raw.data
    }
    if records:
        return await by_checkpoints(client, records, LINES)
    found: dict[str, int] = {}
    for info in await client.jetstream().consumers_info("JOURNAL"):
        if info.name in LINES.values():
            found[info.name] = (info.num_pending or 0) + (info.num_ack_pending or 0)
    return Unsettled(found, [])


class Raw(NamedTuple):
    """One message of a stream."""

    subject: str
    headers: dict[str, str]
    data: bytes
    seq: int
    at: float


async def read(client: Client, stream: str, *, last: bool = False) -> AsyncIterator[Raw]:
    """A stream from end to end, or the last of each key of a bucket; none where it is not there."""
    js = client.jetstream()
    policy = DeliverPolicy.LAST_PER_SUBJECT if last else DeliverPolicy.ALL
    config = ConsumerConfig(
        name=f"chaos-{secrets.token_hex(8)}",  # the role `control` makes none without a name
        deliver_policy=policy,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=30.0,
        mem_storage=True,
    )
    try:
        info = await js.stream_info(stream)
        if not info.state.messages:
            return
        subject = f"${stream.replace('_', '.', 1)}.>" if last else ""
        reader = await js.pull_subscribe(subject, stream=stream, config=config)
    except NotFoundError:
        return
    left, silent = 1, 0
    while left and silent < _SILENT:  # what is overwritten meanwhile is never delivered
        try:
            batch = await reader.fetch(_BATCH, timeout=2.0)
        except nats.errors.TimeoutError:
            left = (await reader.consumer_info()).num_pending or 0
            silent += 1
            continue
        silent = 0
        for message in batch:
            meta = message.metadata
            left = meta.num_pending
            yield Raw(
                message.subject,
                dict(message.headers or {}),
                message.data,
                meta.sequence.stream,
                meta.timestamp.timestamp(),
            )
    await reader.unsubscribe()


async def _journal(client: Client) -> dict[str, list[Stored]]:
    found: dict[str, list[Stored]] = {line: [] for line in STORED}
    async for raw in read(client, "JOURNAL"):
        _, _, tenant, service, action = raw.subject.split(".")
        if service == "chaos" and action in found:
            body = json.loads(raw.data)
            key, kind = Key(body["producer"], body["sequence"]), body.get("kind", "")
            found[action].append(Stored(raw.seq, tenant, body["tenant"], key, kind, raw.at))
    return found


async def _state(client: Client) -> tuple[dict[str, list[Effect]], dict[str, dict[str, int]]]:
    """All books, each with its pages before it, and the counters beside them.

    `loose` has no book, but a key for each effect.
    """
    books: dict[tuple[str, str], list[tuple[int, list[Any]]]] = {}
    counts: dict[str, dict[str, int]] = {line: {} for line in COUNTED}
    async for raw in read(client, "KV_state", last=True):
        tenant, service, line, *rest = raw.subject.removeprefix("$KV.state.").split(".")
        if line not in WRITTEN or LINES[line] != service or not raw.data:
            continue
        body = json.loads(raw.data)
        if rest == ["count"]:
            counts[line][tenant] = body["n"]
            continue
        pages = books.setdefault((line, tenant), [])
        if line == "loose":
            pages.append((raw.seq, [body]))
        elif rest == ["book"]:
            pages.append((1 << 60, body["rows"]))
        else:
            pages.append((int(rest[1]), body))
    effects: dict[str, list[Effect]] = {line: [] for line in WRITTEN}
    for (line, tenant), pages in books.items():
        effects[line] += [
            Effect(tenant, named, Key(producer, sequence), pid)
            for _, rows in sorted(pages, key=lambda page: page[0])
            for named, producer, sequence, _, pid in rows
        ]
    return effects, counts


async def replays(client: Client) -> dict[str, str]:
    """The state of the last replay of each `<service>.<tenant>`."""
    return {
        raw.subject.removeprefix("$KV.replays."): json.loads(raw.data)["state"]
        async for raw in read(client, "KV_replays", last=True)
        if raw.data
    }


async def _dead(client: Client) -> list[Dead]:
    letters = []
    async for raw in read(client, "DEAD"):
        _, tenant, service, seq = raw.subject.split(".")
        told = raw.headers.get("Tenant-Dead-Seq", "0")
        reason = raw.headers.get("Tenant-Dead-Reason", "")
        detail = raw.headers.get("Tenant-Dead-Detail", "")
        named = str(json.loads(raw.data).get("tenant", ""))
        letters.append(Dead(tenant, service, int(seq), int(told), named, reason, detail))
    return letters


def _begun(file: Path) -> list[Begun]:
    """What killers have written before they ended their worker."""
    if not file.exists():
        return []
    lines = [msgspec.json.decode(line, type=Beginning) for line in file.read_bytes().splitlines()]
    return [
        Begun(each.tenant, Key(each.producer, each.sequence), each.at, each.pid) for each in lines
    ]
