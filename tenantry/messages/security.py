"""Refusals that look like attacks."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from tenantry.messages.base import Message, Seconds

SecurityKind = Literal[
    "forged_header",
    "foreign_reply",
    "bad_subject",
    "unknown_tenant",
    "bad_renewal",
    "bad_context",
    "foreign_context",
    "crossed_context",
    "revoked_credentials",
    "expired_credentials",
    "forged_credentials",
    "refused_credentials",
    "no_credentials",
    "permission_violation",
]


class SecurityEvent(Message, frozen=True, kw_only=True):
    """What was tried and refused (stream `AUDIT`, subject `audit.<tenant or ->.<kind>`).

    One stands for all that one source has tried within a few seconds. It never holds a token, the
    value of a header, or a body. What is not known is empty.
    """

    kind: SecurityKind
    count: Annotated[int, Meta(ge=1)]
    """How many attempts it stands for."""
    first: Seconds
    """When the first of them was refused."""
    last: Seconds
    """When the last of them was refused."""
    tenant: str = ""
    """Whose credentials were used, where that is proven; `*` for sources beyond number."""
    victim: str = ""
    """The other tenant that it was aimed at."""
    user: str = ""
    """Public key of the user's credentials, where that is proven."""
    claimed: str = ""
    """Public key of the user that the first of them claimed to be: nothing proves it."""
    host: str = ""
    """Address that the connection came from, as its server saw it."""
    connection: str = ""
    """The first one's connection: `<server's id>:<number>`, or as the server's log names it."""
    subject: str = ""
    """The first one's subject: at most 200 characters, what can't be printed as `?`."""
    why: str = ""
    service: str
    """Who refused it."""
    instance: str
