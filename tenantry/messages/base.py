"""What messages and records are made of."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

TenantId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=63,
        pattern="^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$",
        description="a DNS label in lower case",
    ),
]
Name = Annotated[str, Meta(pattern="^[a-z](?:[a-z0-9_]{0,61}[a-z0-9])?$", max_length=63)]
Seconds = Annotated[float, Meta(ge=0)]
PublicKey = Annotated[
    str, Meta(pattern="^U[A-Z2-7]{55}$", description="public NKEY of a NATS user")
]


class Message(Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base of every record and message here; readers ignore fields they do not know."""


class Empty(Message, frozen=True, kw_only=True):
    """No fields."""
