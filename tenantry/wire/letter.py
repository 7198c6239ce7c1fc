"""Dead letters on the wire: why a message was given up, and the headers it had.

Each field of the letter is a header `Tenant-Dead-<Field>`. Headers that mean something to NATS
(`Nats-…`) stand under the same prefix, so that they do nothing in the stream of the dead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from tenantry.errors import BadMessage
from tenantry.messages import DeadLetter
from tenantry.wire import headers as names

MAX_DETAIL = 500
"""Characters of a detail; what is over is cut."""

_NATS = "nats-"
_PIN = "nats-pin-id"
"""Of the delivery, not of the message."""

_HEADER = {
    field: names.DEAD + "-".join(word.title() for word in field.split("_"))
    for field in DeadLetter.__struct_fields__
}


def dump(letter: DeadLetter, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a dead letter, from it and from the headers of its message.

    The message's own `Tenant-Dead-…`, of which it has no business to have any, are left out, and
    names that can't be sent: else it could never be laid down, and would stay in its tenant's way.
    """
    dumped = {}
    for name, value in headers.items():
        if name.lower() == _PIN or not names.can_be_sent(name):
            continue
        if name.lower().startswith(_NATS):
            dumped[names.DEAD + name] = value
        elif not _is_ours(name):
            dumped[name] = value
    for field, name in _HEADER.items():
        if text := _line(str(getattr(letter, field))):
            dumped[name] = text[:MAX_DETAIL].rstrip() if field == "detail" else text
    return dumped


def load(headers: Mapping[str, str]) -> tuple[DeadLetter, dict[str, str]]:
    """The dead letter in these headers, and those of the message as they were.

    Headers of NATS's own, with which the letter itself was stored and read, are left out. Raises
    :class:`BadMessage` where a field is missing or malformed; `path` is the header.
    """
    fields = {field: headers[name] for field, name in _HEADER.items() if name in headers}
    own = {}
    for name, value in headers.items():
        if _is_ours(name):
            former = name[len(names.DEAD) :]
            if former.lower().startswith(_NATS):
                own[former] = value
        elif not name.lower().startswith(_NATS):
            own[name] = value
    return _letter(fields), own


def _letter(fields: Mapping[str, str]) -> DeadLetter:
    try:
        letter = msgspec.convert(fields, DeadLetter, strict=False)
    except msgspec.ValidationError as error:
        raise BadMessage(f"this is no dead letter: {error}") from None
    for field in ("stored", "first_failed", "at"):
        if not math.isfinite(getattr(letter, field)):
            raise BadMessage("this is no dead letter: not a time", path=_HEADER[field])
    return letter


def _is_ours(name: str) -> bool:
    return name.lower().startswith(names.DEAD.lower())


def _line(text: str) -> str:
    """What a header can carry of a text: one line of UTF-8, nothing that does not print."""
    words = text.encode("utf-8", "replace").decode().split()
    return "".join(each if each.isprintable() else "?" for each in " ".join(words))
