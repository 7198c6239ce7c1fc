"""The ways across the wall between tenants that the suite tries, and the layers that stop them.

A test says what it tries: `@cannot(27, Layer.ROUTER, Layer.CONTEXT)` is a way across, stopped by
either of these layers; `@cannot(27, Layer.CONTEXT, without=Layer.ROUTER)` is the same way with one
layer switched off; `@can(27)` is what stays possible within the tenant's own bounds.
`test_cases.py` holds the table against the tests; docs/isolation.md shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T", bound=Callable[..., object])
MARK = "__isolation__"


class Layer(StrEnum):
    """What stops a way across; the value is what the documentation calls it."""

    GRAMMAR = "grammar of ids and subjects"
    SERVER = "permissions in nats-server"
    ACCOUNT = "accounts: what is not imported is not there"
    ROUTER = "admission in the router"
    CONTEXT = "verification of the context in the worker"
    RUNTIME = "the worker's runtime"
    STORE = "keys that begin with the tenant"
    CONTROL = "the tenants worker"
    CLI = "the command line"


CASES = {
    # Subject and id
    1: "an id with a dot",
    2: "`*` as an id or in a subject",
    3: "`>` as an id or in a subject",
    4: "CR, LF, tab, space, NUL in an id or a subject",
    5: "an empty token",
    6: "`$SYS`, `$JS`, `_INBOX` as an id",
    7: "look-alike Unicode",
    8: "upper and lower case",
    9: "an id that begins with another id",
    10: "too long, too deep",
    11: "an id used again after deletion",
    # NATS permissions
    12: "subscribe `tenant.>`",
    13: "subscribe `tenant.*.orders.place`",
    14: "a wildcard that overlaps",
    15: "a queue subscription",
    16: "joining the router's queue group",
    17: "subscribe `_INBOX.>`",
    18: "another tenant's inbox prefix",
    19: "a reply subject in another tenant",
    20: "a reply subject in JetStream's API",
    21: "a late or a second reply",
    22: "no credentials",
    23: "credentials of a suspended or deleted tenant, also on an open connection",
    24: "permissions in a self-made JWT",
    # Headers
    25: "a forged `Tenant-Context`",
    26: "a header twice, or in another case",
    27: "one tenant's context on another tenant's subject",
    28: "CR or LF in a header's value",
    29: "a forged `Nats-Request-Info`",
    30: "`Nats-Trace-Dest`",
    31: "an expired context, used anew",
    32: "a `Nats-Msg-Id` that shadows another tenant's message",
    33: "a forged `traceparent` or `baggage`",
    # JetStream and KV
    34: "`$JS.API.>`: list and info",
    35: "a consumer on another tenant's filter",
    36: "a message of the journal by its sequence",
    37: "a purge",
    38: "a forged `$JS.ACK`",
    39: "KV: get and watch",
    40: "a stream that sources from the journal",
    41: "dead letters redriven into another tenant",
    42: "a replay over several tenants",
    # Inside a worker
    43: "context of one message seen by another, in background tasks and threads",
    44: "cancellation at any await, then the next message",
    45: "a handler that emits for another tenant",
    46: "a handler that keeps a context and uses it later",
    47: "exception, log line or metric with another tenant's data",
    48: "timing or error that tells whether a tenant exists",
    # Further: subjects, permissions, credentials
    49: "a public key that another tenant's credentials name already",
    50: "frames that no client would write",
    51: "a second login on an open connection",
    # What waits, what died, what is handled again
    60: "another tenant's schedule, cancelled by its id",
    61: "a timer that tells of another tenant's schedule",
    62: "a schedule that carries another tenant's context",
    63: "another tenant's dead letters, read or taken",
    64: "a recovery that fills another tenant's state, or sets it back",
    65: "a replay's handler that acts for another tenant",
    # State, limits and figures
    66: "state of another tenant, by the name of a value",
    67: "a key of one tenant that begins another's",
    68: "another tenant's rate or quota, used up",
    69: "another tenant's figures",
    70: "`$SRV` and the catalogue, read from outside",
    # Files and the command line
    71: "one tenant's credentials under another's name",
    72: "secrets in files that others may read",
    73: "an export with another tenant's messages",
    74: "an archive of one tenant imported into another",
    75: "an archive doctored to reach further",
    76: "erasing one tenant that takes from another, or leaves something",
    # Inside a worker, further
    77: "a handler that changes its context",
    78: "a body or a credential in logs, spans or metrics",
    79: "a handler that ends its task oddly, then the next message",
    # Inside the mesh: a process that was taken over, with valid credentials of a role
    80: "a service that hears the edge, or another service's requests",
    81: "a service that signs contexts: asks for one, or lays down a key of its own",
    82: "a service at consumers of others: lists, changes, acknowledges, forges one to go on from",
    83: "a service at another's state, cursors, replays, checkpoints and leases",
    84: "a service at another's dead letters, schedules and catalogue entry",
    85: "a service that reads tenants' records, plans, credentials or what they use",
    86: "a role that administers JetStream: purge, delete, update, snapshot, restore",
    87: "a role in SYS, in the inbox of another process, or in the tenants' inboxes",
    88: "credentials of the role service for no service, or for a wildcard",
    # What becomes an audit event
    90: "credentials that are signed, of a tenant without a record",
    91: "a made-up context on a request inside the mesh",
    92: "a made-up context in the journal",
    93: "a renewal of another message's context",
    94: "what nats-server does not permit, tried unseen",
    95: "a client's name that looks like a line of the server's log",
}
"""Number and what is tried. Further cases get the next numbers."""


@dataclass(frozen=True)
class Attempt:
    """What one test says of itself."""

    case: int
    succeeds: bool
    layers: tuple[Layer, ...] = ()
    without: Layer | None = None


def cannot(case: int, *layers: Layer, without: Layer | None = None) -> Callable[[T], T]:
    """A way across that `layers` stop, each one alone; `without` is switched off in this test."""
    assert case in CASES
    assert layers
    return _says(Attempt(case, succeeds=False, layers=layers, without=without))


def can(case: int) -> Callable[[T], T]:
    """What stays possible: the same, within the tenant's own bounds."""
    assert case in CASES
    return _says(Attempt(case, succeeds=True))


def _says(attempt: Attempt) -> Callable[[T], T]:
    def mark(test: T) -> T:
        setattr(test, MARK, (*getattr(test, MARK, ()), attempt))
        return test

    return mark
