"""Names of the headers on the wire, and which of them a tenant's program may set.

Header names are case-sensitive in nats-py and the last value wins, so what comes from outside is
compared in lower case and rebuilt, never patched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

CONTEXT = "Tenant-Context"
"""The signed tenant context, set by the router."""

DEADLINE = "Tenant-Deadline"
"""When the asker stops waiting: milliseconds since the epoch, by the clock of who sent it on."""

TIMEOUT = "Tenant-Timeout"
"""Seconds that the asker waits.

Inside it stands beside `DEADLINE`: whoever gets the message counts from when it came, so clocks
that are apart do no harm.
"""

MAX_TIMEOUT = 86_400
"""Whoever waits as long, seconds, is refused."""

ONLY = "Tenant-Only"
"""The one service that a redriven message is for; to all others it is not there."""

MESSAGE_ID = "Tenant-Message-Id"
"""The id that a redriven message had at first: what it causes derives from it."""

HOPS = "Tenant-Hops"
"""Count of the messages of services that led to this one, each the cause of the next.

It is absent on what comes from outside; a command for later begins anew.
"""

HISTORY = "-"
"""What `Tenant-Only` begins with on an imported message: no service is named so, and so none
handles it as new. A replay does, for the service that may follow, or for all."""

STORED = "Tenant-Stored"
"""On an imported message: when it was stored where it comes from, seconds since the epoch."""

SOURCE = "Tenant-Source"
"""On an imported message: the journal that it comes from, a dot, and its sequence there."""

DEAD = "Tenant-Dead-"
"""What begins the headers that a dead letter has more than the message had; see `DeadLetter`.

A header of NATS's own (`Nats-…`) would mean something there, so it is kept under this prefix.
"""

FENCE = "Tenant-Fence"
"""On a value of a service's state: how far its tenant's messages had come when it was written."""

COMMAND = "Tenant-Command"
"""On a schedule: the command it is, `<service>.<action>`."""

DUE = "Tenant-Due"
"""On a schedule and its timer: when it is due, milliseconds since the epoch."""

ORDER = "Tenant-Order"
"""On a timer: `<sequence of the cause in the journal>.<position>`, among those due together."""

MSG_ID = "Nats-Msg-Id"
SCHEDULE = "Nats-Schedule"
SCHEDULE_TARGET = "Nats-Schedule-Target"
SCHEDULER = "Nats-Scheduler"
"""On what a timer publishes: the timer's subject. Set by nats-server, which takes it from nobody.
"""
TTL = "Nats-TTL"
ERROR = "Nats-Service-Error"
ERROR_CODE = "Nats-Service-Error-Code"
RETRY_AFTER = "Retry-After"
RATE = "RateLimit"
RATE_POLICY = "RateLimit-Policy"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
CONTENT_TYPE = "Content-Type"

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_RESERVED = ("nats-", "tenant-")
_REFUSED = frozenset(
    {"status", "description", "baggage", "ratelimit", "ratelimit-policy", TRACEPARENT, TRACESTATE}
)


_FORGED = ("tenant-", "nats-request-info", "nats-trace-", "nats-rollup", "nats-schedule")
_TIMEOUT = TIMEOUT.lower()
_DIGITS = 10


def is_forged(headers: Mapping[str, str]) -> bool:
    """Whether a tenant's program has set what only the mesh sets, or what steers nats-server.

    What a program sets for its own publishes, as `Nats-Expected-…`, is none of that.
    """
    for name in headers:
        lower = name.lower()
        if lower.startswith(_FORGED) and lower != _TIMEOUT:
            return True
    return False


_INSTRUCTIONS = (
    *("nats-expected-", "nats-ttl", "nats-rollup", "nats-incr"),
    *("nats-schedule", "nats-batch-"),
)


def instruction(headers: Mapping[str, str]) -> str | None:
    """The first header that tells JetStream when, or on which condition, to store the message.

    The router stores a tenant's commands by its own rules: whoever sent such a header would be told
    that the message is stored, though not as asked.
    """
    for name in headers:
        if name.lower().startswith(_INSTRUCTIONS):
            return name
    return None


def hops(headers: Mapping[str, str]) -> int:
    """Return how many messages of services led to this one; 0 where its headers do not say."""
    text = headers.get(HOPS, "")
    return int(text) if len(text) < _DIGITS and text.isascii() and text.isdigit() else 0


def can_be_sent(name: str) -> bool:
    """Whether a header may have this name; one that is read may have others."""
    return _NAME.fullmatch(name) is not None


def from_outside(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a tenant's program that may enter the mesh.

    What NATS and the mesh give meaning to is dropped, whatever its case; trace headers are handled
    apart, by :mod:`tenantry.wire.trace`.
    """
    kept = {}
    for name, value in headers.items():
        lower = name.lower()
        if not lower.startswith(_RESERVED) and lower not in _REFUSED:
            kept[name] = value
    return kept


def find(headers: Mapping[str, str], name: str) -> str | None:
    """The value of `name`, whatever its case."""
    if (value := headers.get(name)) is not None:
        return value
    size, lower = len(name), name.lower()
    for key, found in headers.items():
        if len(key) == size and key.lower() == lower:
            return found
    return None
