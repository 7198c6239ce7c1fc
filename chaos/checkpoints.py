"""What services have not settled, as their checkpoints and the journal tell.

Read through plain nats-py, with nothing of the mesh.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from nats.aio.client import Client

PARTITIONS = 16

_PATIENCE = 5.0
"""How long an answer of the server is waited for, seconds."""


class Unsettled(NamedTuple):
    """What is left to do."""

    waiting: dict[str, int]
    """Messages by `<service>-<partition>`, without those of sidelined tenants."""
    sidelined: list[str]
    """`<service>.<tenant>` of each row of a checkpoint that is sidelined."""


async def by_checkpoints(
    client: Client, records: Mapping[str, Mapping[str, Any]], lines: Mapping[str, str]
) -> Unsettled:
    """Count what the services of `lines` have not settled; `records` are all checkpoints by key.

    A partition that nobody has claimed counts from its beginning on.
    """
    waiting: dict[str, int] = {}
    sidelined: list[str] = []
    for service in sorted(set(lines.values())):
        mine = [line for line, handler in lines.items() if handler == service]
        counts = await asyncio.gather(
            *(
                _after(client, part, mine, records.get(f"{service}.{part}", {}).get("read_to", 0))
                for part in range(PARTITIONS)
            )
        )
        for part, count in enumerate(counts):
            rows = records.get(f"{service}.{part}", {}).get("open", {})
            aside = [name for name, row in rows.items() if row.get("why")]
            sidelined += [f"{service}.{name}" for name in aside]
            waiting[f"{service}-{part}"] = count + len(rows) - len(aside)
    return Unsettled(waiting, sidelined)


async def _after(client: Client, partition: int, lines: list[str], seq: int) -> int:
    """How many messages of these lines a partition has after a sequence."""
    subjects = (f"journal.{partition}.*.chaos.{line}" for line in lines)
    return sum(await asyncio.gather(*(_from(client, each, seq + 1) for each in subjects)))


async def _from(client: Client, subject: str, first: int) -> int:
    """How many messages a subject has from a sequence on: the first one tells it."""
    ask = {"seq": first, "next_by_subj": subject, "batch": 1}
    body = json.dumps(ask).encode()
    answer = await client.request("$JS.API.DIRECT.GET.JOURNAL", body, timeout=_PATIENCE)
    headers = answer.headers or {}
    if headers.get("Status") == "404":
        return 0
    return int(headers["Nats-Num-Pending"]) + 1
