"""Dead letters laid by hand: what a service does when it gives up, without a service that fails."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

from msgspec.structs import replace

from tenantry import subjects
from tenantry.bus import Bus, store
from tenantry.messages import DeadLetter
from tenantry.streams import DEAD
from tenantry.wire import letter
from tests.mesh import Entry, Program, eventually, journal

_BY_NATS = {"Stream", "Subject", "Sequence", "Time-Stamp", "Num-Pending", "Last-Sequence"}


async def sent(control: Bus, program: Program, text: str, action: str = "notes.remember") -> Entry:
    """Send a command; returns what the journal holds of it, without what NATS says of that."""
    ack = await program.client.publish(action, {"text": text})
    entry = next(e for e in await journal(control, program.id, action) if e.seq == ack.seq)
    own = {n: v for n, v in entry.headers.items() if n.removeprefix("Nats-") not in _BY_NATS}
    own["stored"] = str(dt.datetime.fromisoformat(entry.headers["Nats-Time-Stamp"]).timestamp())
    return entry._replace(headers=own)


async def lay(control: Bus, tenant: str, entry: Entry, **fields: Any) -> int:
    """Lay a message down as a dead letter of its own service; returns the letter's number."""
    own = dict(entry.headers)
    stored = float(own.pop("stored"))
    about = DeadLetter(
        reason="handler_failed",
        detail="as the test wants it",
        attempts=3,
        service=entry.name.split(".", maxsplit=1)[0],
        action=entry.name,
        seq=entry.seq,
        stored=stored,
        first_failed=stored,
        at=round(time.time(), 3),
    )
    about = replace(about, **fields)
    subject = subjects.dead(tenant, about.service, about.seq)
    ack = await store(control, subject, entry.data, headers=letter.dump(about, own))
    assert ack.stream == DEAD
    return ack.seq


async def died(control: Bus, program: Program, text: str, **fields: Any) -> int:
    """Send a command that is handled, and lay it down as if it had not been."""
    entry = await sent(control, program, text)
    await eventually(lambda: _has(program, text))
    return await lay(control, program.id, entry, **fields)


async def _has(program: Program, text: str) -> bool:
    return text in await program.texts()
