"""Dead letters and their way back."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from tenantry.messages.base import Message, Name


class DeadLetter(Message, frozen=True, kw_only=True):
    """What the headers of a message in the stream `DEAD` say of its end.

    On the wire each field is a header `Tenant-Dead-<Field>` (`Tenant-Dead-Reason`,
    `Tenant-Dead-First-Failed`, …); headers of NATS's own are kept as `Tenant-Dead-Nats-…`, all
    others and the body are the message's own. Subject: `dead.<tenant>.<service>.<seq>`.
    """

    reason: str
    """The code of the rejection: `bad_message`, `handler_failed`, `bad_context`, …"""
    detail: str = ""
    attempts: int
    service: Name
    """Who gave it up: not always whose message it is."""
    action: str
    """`<service>.<action>` of the message."""
    seq: int
    """Its sequence in the journal."""
    stored: float
    """When the journal stored it."""
    first_failed: float
    at: float
    """When it was given up."""
    cut: Literal["", "body", "all"] = ""
    """The parts that NATS would not take with the letter: the message's body, or its headers too.
    The journal has them, until the plan's retention ends."""


class Redrive(Message, frozen=True, kw_only=True):
    """A dead letter on its way back (bucket `redrives`, key: `<tenant>.<number>`), then gone.

    Where one is left, a redrive was cut off, and the journal may have the message.
    """

    id: str
    """The `Nats-Msg-Id` that it has in the journal, if it is there."""
    since: Annotated[int, Meta(ge=1)]
    """The first sequence of the journal that it can have there."""
    at: float
