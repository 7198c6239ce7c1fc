"""A message as it came from NATS; its headers are read when somebody asks for them."""

from __future__ import annotations

import functools

_STATUS_LINE = "NATS/1.0 "
_SPACE = " \t\n\r\v\f"


class Message:
    """What a subscription receives."""

    __slots__ = ("_block", "_fields", "data", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, block: bytes = b"") -> None:
        self.subject = subject
        self.reply = reply
        """Where an answer is expected; empty for nowhere."""
        self.data = data
        self._block = block
        self._fields: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str] | None:
        """The header fields, of each name the last; None where there are none."""
        if self._fields is None and self._block:
            self._fields = fields(self._block)
            self._block = b""
        return self._fields

    def __repr__(self) -> str:
        return f"Message({self.subject!r}, {len(self.data)} bytes)"


def fields(block: bytes) -> dict[str, str] | None:
    """Read a header block (ADR-4) as nats-py does; what is no field in it is passed over.

    Any tenant's program can send a block that is not text: that must not end anything. A status
    of the server's stands as `Status` and `Description`.
    """
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    found = {}
    if first.startswith(_STATUS_LINE):
        if (status := first[9:12].strip()).isdigit():
            found["Status"] = status
        if description := first[13:]:
            found["Description"] = description
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and (key := _name(name)):
            found[key] = value.strip(_SPACE)
    return found or None


@functools.lru_cache(maxsize=1024)
def _name(raw: str) -> str:
    """The name of a field; empty for one that can't be."""
    name = raw.strip(_SPACE)
    return "" if not name.isascii() or any(letter.isspace() for letter in name) else name
