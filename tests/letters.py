"""Dead letters laid by hand: what a service does when it gives up, without a service that fails."""

from __future__ import annotations

import time
from typing import Any

from msgspec.structs import replace

from tenantry import subjects
from tenantry.bus import Bus, store
from tenantry.bus.scan import find
from tenantry.messages import DeadLetter
from tenantry.streams import DEAD, JOURNAL
from tenantry.wire import letter
from tests.mesh import Entry, Program, eventually


async def stored(control: Bus, seq: int) -> Entry:
    """A message of the journal, with a header that says when it was stored."""
    found = await find(control, JOURNAL, seq)
    assert found is not None
    _, part, _, name = found.subject.split(".", 3)
    return Entry(int(part), name, seq, {**found.headers, "stored": str(found.time)}, found.data)


async def sent(control: Bus, program: Program, text: str, action: str = "notes.remember") -> Entry:
    """Send a command; returns what the journal holds of it."""
    return await stored(control, (await program.client.publish(action, {"text": text})).seq)


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
