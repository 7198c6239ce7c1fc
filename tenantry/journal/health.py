"""Health of the journal: that it stores what it is sent, and how full it is.

Only storing a message proves it: after a full disk nats-server gives a stream up until it restarts,
while connections, other streams and everything that reads go on (nats-server 2.15.1, issue 7654).
"""

from __future__ import annotations

from typing import Any

import msgspec

from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.errors import DeadlineExceeded, JetStreamError
from tenantry.streams import JOURNAL
from tenantry.wire import headers

PATIENCE = 3.0
"""Seconds that a probe waits for the journal's acknowledgement."""

_PROBE = "tenant.nobody.platform.probe"
_RESERVE = 20
"""The last part of the journal, one in so many, that commands from outside do not get."""


class JournalHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a probe of the journal."""

    stores: bool
    """True if the journal has just stored a message."""
    silent: bool = False
    """True if it did not even refuse: nats-server has to be restarted."""
    full: bool = False
    """True if routers refuse commands, because only the reserve is left."""
    used: int = 0
    """Bytes that the journal holds."""
    limit: int = -1
    """Bytes that it may hold; -1 for no limit."""
    why: str = ""
    """Why it does not store."""

    @property
    def good(self) -> bool:
        """Tell whether commands are taken."""
        return self.stores and not self.full


def room(info: dict[str, Any]) -> float:
    """The bytes that commands from outside may still take, of the answer to `STREAM.INFO`.

    Below 0 there are none. The last 5 % are kept for what services emit and send, so that the
    messages in hand can be finished. Infinite where the journal has no limit.
    """
    limit = int(info["config"]["max_bytes"])
    if limit <= 0:
        return float("inf")
    return limit - limit // _RESERVE - int(info["state"]["bytes"])


async def probe(bus: Bus, *, patience: float = PATIENCE) -> JournalHealth:
    """Store a message in the journal, which goes after a second and is nobody's.

    `bus` needs the role `control`. Raises :class:`~tenantry.errors.TenantryError` where NATS or
    JetStream as a whole do not answer.
    """
    info = await js.api(bus, f"STREAM.INFO.{JOURNAL}", timeout=patience)
    stores, silent, why = True, False, ""
    try:
        await js.store(bus, _PROBE, b"", headers={headers.TTL: "1s"}, timeout=patience)
    except DeadlineExceeded:
        stores, silent = False, True
        why = f"the journal has not stored a message within {patience:g} s"
    except JetStreamError as error:
        stores, why = False, f"the journal refuses: {error.message}"
    return JournalHealth(
        stores=stores,
        silent=silent,
        full=room(info) < 0,
        used=int(info["state"]["bytes"]),
        limit=int(info["config"]["max_bytes"]),
        why=why,
    )
