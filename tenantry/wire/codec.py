"""Bodies: typed JSON in, typed JSON out, with the path of the fault when it does not fit."""

from __future__ import annotations

import re
import types
import typing
from typing import Any, Generic, TypeVar

import msgspec

from tenantry.errors import BadMessage

T = TypeVar("T")

_PATH = re.compile(r"(.*) - at `(\$[^`]*)`", re.DOTALL)
"""Only at the end: the text before may quote the sender."""

_QUOTED = 200
"""How much of what the sender wrote an error repeats, characters."""

_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """Encode a message as JSON."""
    return _encoder.encode(value)


class Decoder(Generic[T]):
    """Decodes one type; made once for each action."""

    def __init__(self, kind: type[T]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode

    def __call__(self, body: bytes) -> T:
        """Decode `body`; raises :class:`BadMessage` with the path of the fault."""
        try:
            return self._decode(body or b"{}")
        except msgspec.ValidationError as error:
            found = _PATH.fullmatch(str(error))
            text, path = found.groups() if found else (str(error), "$")
            bad = BadMessage(_short(text), path=path)
            bad.quotes = True
            raise bad from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadMessage(
                f"the body is not JSON: {_short(str(error))}", hint="send a JSON object in UTF-8"
            ) from None


def classes(kind: Any) -> tuple[type, ...]:
    """The classes that values of a type are instances of; `object` where it has none of its own."""
    origin = typing.get_origin(kind) or kind
    if origin is typing.Annotated:
        return classes(kind.__origin__)
    if origin in (typing.Union, types.UnionType):
        return tuple(part for member in typing.get_args(kind) for part in classes(member))
    if origin is None:
        return (types.NoneType,)
    if origin is float:
        return (float, int)  # as annotations have it (PEP 484)
    if origin is Any or not isinstance(origin, type) or typing.is_typeddict(origin):
        return (object,)
    return (origin,)


def _short(text: str) -> str:
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"
