"""What the signed tenant context says, and how it is read and written."""

from __future__ import annotations

import msgspec


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant context says. Times are seconds since the epoch."""

    tenant: str
    plan: str
    principal: str = msgspec.field(name="sub")
    roles: tuple[str, ...] = ()
    cell: str = ""
    retention: int = 0
    """How long the journal keeps what is done in this context, seconds; 0 for the stream's own."""
    weight: int = 1
    """The tenant's share of a busy worker, relative to the others'."""
    concurrency: int = 0
    """How many messages of the tenant one service may run at a time; 0 for no bound of its own."""
    issued: float = msgspec.field(name="iat")
    expires: float = msgspec.field(name="exp")


class Header(msgspec.Struct, frozen=True):
    """What a token says of itself (RFC 7515, section 4)."""

    alg: str
    kid: str
    typ: str


decode_header = msgspec.json.Decoder(Header).decode
decode_claims = msgspec.json.Decoder(Claims).decode
