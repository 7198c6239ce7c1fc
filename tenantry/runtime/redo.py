"""The redo record: what a message with several effects has committed, until all are made."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tenantry.errors import Unavailable
from tenantry.runtime.outbox import Parcel


class Redo(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one message has committed: each effect can be made again from it.

    It is stored as MessagePack, since the values in it are bytes: base64 would take a third more of
    what NATS allows for one record.
    """

    fence: int
    token: str
    """The context that its events are published with."""
    expires: float
    """When that context ends, seconds since the epoch."""
    trace: dict[str, str]
    """Return the headers that its events take over: trace and hop count."""
    writes: dict[str, bytes | None]
    """New values by key, JSON; None deletes."""
    events: list[Parcel]


class Slot(NamedTuple):
    """The place of a redo record: one for each tenant and namespace of its state."""

    tenant: str
    generation: int


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Redo).decode


def decode(key: str, body: bytes) -> Redo:
    """Read a record; raises :class:`Unavailable` where it is from another version or damaged."""
    try:
        return _decode(body)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the redo record {key} can't be read: {error}") from None
