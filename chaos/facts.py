"""What the oracle judges: what was sent, and all that JetStream holds afterwards.

Read through plain nats-py, with nothing of the mesh: neither its code nor its word for it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

LINES = {"do": "chaos", "done": "echo", "late": "chaos", "loose": "chaos"}
"""What the journal holds of the service `chaos`, by action, and which service handles it."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything, after a run."""

    sent: list[Sent]
    stored: dict[str, list[Stored]]
    """What the journal holds, in its order, by line."""
    effects: dict[str, list[Effect]]
    """By line; those of one tenant in the order in which they happened, except for `loose`."""
    dead: list[Dead] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    """By consumer, what is not delivered or not acknowledged."""
    replays: dict[str, str] = field(default_factory=dict)
    """`<service>.<tenant>` of the last replay of each, and its state."""
    behind: list[str] = field(default_factory=list)
    """`<service>.<tenant>` of each that is still read apart."""


async def collect(client: Client, sent: list[Sent]) -> Facts:
    """Read all of it."""
    return Facts(
        sent=sent,
        stored=await _journal(client),
        effects=await _effects(client),
        dead=await _dead(client),
        waiting=await waiting(client),
        replays=await replays(client),
        behind=await behind(client),
    )


async def waiting(client: Client) -> dict[str, int]:
    """By consumer of our services, how many messages are not done with."""
    found: dict[str, int] = {}
    js, offset = client.jetstream(), 0
    while infos := await js.consumers_info("JOURNAL", offset=offset):
        offset += len(infos)
        for info in infos:
            if info.name.partition("-")[0] in LINES.values():
                found[info.name] = (info.num_pending or 0) + (info.num_ack_pending or 0)
    return found


async def behind(client: Client) -> list[str]:
    """Whose messages are read apart from the lane."""
    rows = []
    async for subject, _, data, *_ in read(client, "KV_cursors", last=True):
        if data and json.loads(data).get("behind"):
            rows.append(subject.removeprefix("$KV.cursors."))
    return rows


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
    found: dict[str, list[Stored]] = {line: [] for line in LINES}
    async for raw in read(client, "JOURNAL"):
        _, _, tenant, service, action = raw.subject.split(".")
        if service == "chaos" and action in LINES:
            body = json.loads(raw.data)
            key, kind = Key(body["producer"], body["sequence"]), body.get("kind", "")
            found[action].append(Stored(raw.seq, tenant, body["tenant"], key, kind, raw.at))
    return found


async def _effects(client: Client) -> dict[str, list[Effect]]:
    """All books, each with its pages before it; `loose` has none, but a key for each effect."""
    books: dict[tuple[str, str], list[tuple[int, list[Any]]]] = {}
    async for raw in read(client, "KV_state", last=True):
        tenant, service, line, *rest = raw.subject.removeprefix("$KV.state.").split(".")
        if LINES.get(line) != service or not raw.data:
            continue
        body = json.loads(raw.data)
        pages = books.setdefault((line, tenant), [])
        if line == "loose":
            pages.append((raw.seq, [body]))
        elif rest == ["book"]:
            pages.append((1 << 60, body["rows"]))
        else:
            pages.append((int(rest[1]), body))
    effects: dict[str, list[Effect]] = {line: [] for line in LINES}
    for (line, tenant), pages in books.items():
        effects[line] += [
            Effect(tenant, named, Key(producer, sequence), pid)
            for _, rows in sorted(pages, key=lambda page: page[0])
            for named, producer, sequence, _, pid in rows
        ]
    return effects


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
        named = str(json.loads(raw.data).get("tenant", ""))
        letters.append(Dead(tenant, service, int(seq), int(told), named, reason))
    return letters
