"""The grammar of ids, names and subjects: four tokens, always.

    tenant.<tenant>.<service>.<action>     EDGE: what a tenant's program sends
                                           MESH: an admitted command, or an event (journal)
    edge.<tenant>.<service>.<action>       MESH: the same as the router sees it, not admitted yet
    request.<tenant>.<service>.<action>    MESH: an admitted request (core NATS)
    journal.<p>.<tenant>.<service>.<action>  how the journal stores what was `tenant.…`
    dead.<tenant>.<service>.<seq>          MESH: what a service gave up on
    schedule.<tenant>.<service>.<id>       MESH: a command that `service` sends later
    timer.<tenant>.<service>.<id>          MESH: when that is, for nats-server
    due.<tenant>.<service>.<id>            MESH: nats-server's word that the time has come
    audit.<tenant or ->.<kind>             MESH: refusals that look like attacks
    platform.<service>.<action>            MESH: the control plane's own requests, no tenant

NATS itself lets wildcards and empty tokens through in publishes, so these checks are what keeps
one tenant's subject from ever naming another's.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from tenantry.errors import BadSubject

PARTITIONS = 16
"""How many partitions the journal has; fixed for the life of a journal (see docs/decisions)."""

_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NAME = re.compile(r"[a-z](?:[a-z0-9_]{0,61}[a-z0-9])?", re.ASCII)
_SCHEDULE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NUMBER = r"(?:0|[1-9]\d{0,8})"
_PRE = r"(?:0|[1-9]\d{0,63}|\d*[a-z-][0-9a-z-]*)"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PRE}(?:\.{_PRE})*)?", re.ASCII)


class Address(NamedTuple):
    """Whose and what a message is about."""

    tenant: str
    service: str
    action: str

    @property
    def name(self) -> str:
        """`<service>.<action>`: the address without the tenant."""
        return f"{self.service}.{self.action}"


def is_tenant(value: str) -> bool:
    """Whether `value` is a tenant id: a DNS label (RFC 1123) in lower case, at most 63 long."""
    return _TENANT.fullmatch(value) is not None


def is_name(value: str) -> bool:
    """Whether `value` can name a service or an action: `[a-z][a-z0-9_]*`, at most 63 long."""
    return _NAME.fullmatch(value) is not None


def is_schedule(value: str) -> bool:
    """Whether `value` can be the id of a schedule: 32 hex digits."""
    return _SCHEDULE.fullmatch(value) is not None


def is_version(value: str) -> bool:
    """Whether `value` is a semantic version without build metadata, in lower case."""
    return _VERSION.fullmatch(value) is not None


def check_tenant(value: str) -> str:
    """Return `value`, or raise :class:`BadSubject` saying what a tenant id looks like."""
    if not is_tenant(value):
        raise BadSubject(
            f"{value[:80]!r} is not a tenant id",
            hint="use 1 to 63 of a-z, 0-9 and inner '-', as in a DNS label",
        )
    return value


def article(noun: str) -> str:
    """`a` or `an`, as it stands before a noun."""
    return "an" if noun[:1] in "aeiou" else "a"


def check_name(value: str, what: str) -> str:
    """Return `value`, or raise :class:`BadSubject` saying what a name of a `what` looks like."""
    if not is_name(value):
        raise BadSubject(
            f"{value[:80]!r} is not a valid name of {article(what)} {what}",
            hint="use 1 to 63 of a-z, 0-9 and inner '_', starting with a letter",
        )
    return value


def version_key(value: str) -> tuple[tuple[int, ...], bool, tuple[tuple[int, int, str], ...]]:
    """Sort key of a version in semantic order (semver.org, section 11)."""
    core, _, pre = value.partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    parts = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".") if part
    )
    return numbers, not pre, parts


def split_action(value: str) -> tuple[str, str]:
    """Split `<service>.<action>`; raises :class:`BadSubject`."""
    service, dot, action = value.partition(".")
    if not dot or not is_name(service) or not is_name(action):
        raise BadSubject(
            f"{value[:120]!r} does not name an action",
            hint="write <service>.<action>, as in orders.place",
        )
    return service, action


def address(tenant: str, action: str) -> Address:
    """The checked address of `<service>.<action>` for `tenant`; raises :class:`BadSubject`."""
    check_tenant(tenant)
    return Address(tenant, *split_action(action))


def parse(subject: str) -> Address:
    """Parse `<root>.<tenant>.<service>.<action>`; raises :class:`BadSubject`."""
    tokens = subject.split(".")
    if len(tokens) != 4:
        raise BadSubject(
            f"the subject has {len(tokens)} tokens", hint="use tenant.<id>.<service>.<action>"
        )
    _, tenant, service, action = tokens
    return Address(
        check_tenant(tenant), check_name(service, "service"), check_name(action, "action")
    )


def parse_stored(subject: str) -> Address:
    """Parse `journal.<p>.<tenant>.<service>.<action>`, which the journal itself made."""
    _, _, tenant, service, action = subject.split(".")
    return Address(tenant, service, action)


def journal(to: Address) -> str:
    """Where a command or an event of `to` is published in MESH, and a tenant's own in EDGE."""
    return f"tenant.{to.tenant}.{to.service}.{to.action}"


def request(to: Address) -> str:
    """Where an admitted request goes."""
    return f"request.{to.tenant}.{to.service}.{to.action}"


def requests(service: str, action: str) -> str:
    """What a service subscribes to get the requests of one action of all tenants."""
    return f"request.*.{service}.{action}"


def stored(partition: int, service: str, action: str) -> str:
    """Filter for one action of all tenants in one partition of the journal."""
    return f"journal.{partition}.*.{service}.{action}"


def stored_of(tenant: str, name: str = "*.*") -> str:
    """Filter for one tenant in the journal; `name` is `<service>.<action>`, each may be `*`."""
    return f"journal.{partition(tenant)}.{tenant}.{name}"


def dead(tenant: str, service: str, seq: int) -> str:
    """Where `service` lays down message `seq` of the journal, which it gave up on."""
    return f"dead.{tenant}.{service}.{seq}"


def schedule(tenant: str, service: str, id: str) -> str:  # noqa: A002
    """Where `service` lays down a command for later; one message a subject."""
    return f"schedule.{tenant}.{service}.{id}"


def timer(tenant: str, service: str, id: str) -> str:  # noqa: A002
    """Where nats-server is told when a schedule is due."""
    return f"timer.{tenant}.{service}.{id}"


def due(tenant: str, service: str, id: str) -> str:  # noqa: A002
    """Where nats-server tells that a schedule is due."""
    return f"due.{tenant}.{service}.{id}"


def audit(tenant: str, kind: str) -> str:
    """Where a refusal that looks like an attack is written down; `tenant` may be empty."""
    return f"audit.{tenant if is_tenant(tenant) else '-'}.{kind}"


@functools.lru_cache(maxsize=65_536)
def partition(tenant: str) -> int:
    """The partition of a tenant: NATS's own, FNV-1a (32 bits) modulo their number."""
    number = 2166136261
    for byte in tenant.encode():
        number = (number ^ byte) * 16777619 % 2**32
    return number % PARTITIONS


def platform(service: str, action: str) -> str:
    """A request of the control plane."""
    return f"platform.{service}.{action}"


def inbox(tenant: str) -> str:
    """The prefix of every reply subject of a tenant's programs, without the final dot."""
    return f"_INBOX.{tenant}"
