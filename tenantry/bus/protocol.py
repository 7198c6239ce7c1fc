"""NATS's client protocol where messages are many: `MSG` and `HMSG` in, `PUB` and `HPUB` out.

nats-py tries up to seven regular expressions on each line, copies what is left of its buffer for
each message and wakes a task for it: 11 µs of the 18 µs that its bare forwarder takes. The rest of
the protocol is left to nats-py.

nats-server takes a vertical tab, a form feed and any other byte but space, tab, CR and LF as a part
of a subject, and puts single spaces between the parts of a line. Whoever splits that line at other
blanks, too, reads a part of somebody's subject as the number of a subscription.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import nats.errors

from tenantry.wire.headers import can_be_sent

Deliver = Callable[[int, bytes, bytes, bytes, bytes], None]
"""Subscription id, subject, reply, body, header block."""

_MAX_LINE = 4096
"""Bytes of a subject with its reply and sizes; at more nats-server, as it is set up, hangs up."""

_SIZES = 24
"""What is left of them for the sizes."""

_NEWLINES = str.maketrans({"\r": " ", "\n": " "})


class Splitter:
    """Splits the bytes of one connection into messages and whole lines of anything else."""

    def __init__(self, deliver: Deliver, other: Callable[[bytes], None]) -> None:
        self._deliver = deliver
        self._other = other
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> None:
        """Take what has come; a message is delivered as soon as its last byte is there."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        at, self._need = 0, 0
        while (end := data.find(b"\r\n", at)) >= 0:
            if data.startswith(b"HMSG ", at):
                arguments = data[at + 5 : end].split(b" ")
                body = end + 2 + int(arguments[-2])
            elif data.startswith(b"MSG ", at):
                arguments = data[at + 4 : end].split(b" ")
                body = end + 2
            else:
                self._other(data[at : end + 2])
                at = end + 2
                continue
            stop = end + 2 + int(arguments[-1])
            if len(data) < stop + 2:
                self._need = stop + 2 - at
                break
            block = data[end + 2 : body]
            reply = arguments[2] if len(arguments) == (5 if block else 4) else b""
            self._deliver(int(arguments[1]), arguments[0], reply, data[body:stop], block)
            at = stop + 2
        if at < len(data):
            self._parts.append(data[at:] if at else data)
            self._have = len(data) - at


def publication(
    subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None, most: int
) -> bytes:
    """The bytes that publish a message.

    Raises nats-py's `BadSubjectError` and `BadHeaderError`, and `MaxPayloadError` for more than
    `most` bytes with the headers: nats-py counts the body alone, and the server hangs up on the
    rest, as on a subject that is too long. Nothing in a subject or header can end its line.
    """
    line = f"{subject} {reply} " if reply else f"{subject} "
    if not subject or " " in subject or " " in reply or _ends_line(line) or "\t" in line:
        raise nats.errors.BadSubjectError
    to = line.encode()
    if len(to) > _MAX_LINE - _SIZES:
        raise nats.errors.BadSubjectError
    if not headers:
        if len(payload) > most:
            raise nats.errors.MaxPayloadError
        return b"PUB %b%d\r\n%b\r\n" % (to, len(payload), payload)
    block = header_block(headers)
    total = len(block) + len(payload)
    if total > most:
        raise nats.errors.MaxPayloadError
    return b"HPUB %b%d %d\r\n%b%b\r\n" % (to, len(block), total, block, payload)


def header_block(headers: Mapping[str, str]) -> bytes:
    """Headers as they go over the wire (ADR-4); a line break in a value becomes a space."""
    lines = ["NATS/1.0"]
    for name, value in headers.items():
        if _known(name):
            lines.append(f"{name}: {value}")
    if _ends_line("".join(headers.values())):
        return header_block({name: value.translate(_NEWLINES) for name, value in headers.items()})
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _ends_line(text: str) -> bool:
    return "\n" in text or "\r" in text


@functools.lru_cache(maxsize=1024)
def _known(name: str) -> bool:
    """Whether this may be a header's name; an empty one is passed over, as nats-py does."""
    if name and not can_be_sent(name):
        raise nats.errors.BadHeaderError(name)
    return bool(name)
