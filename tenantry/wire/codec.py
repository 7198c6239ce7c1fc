"""Bodies: typed JSON in, typed JSON out, with the path of the fault when it does not fit."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec

from tenantry.errors import BadMessage
from tenantry.wire.strict import Fields, Unknown

T = TypeVar("T")

_PATH = re.compile(r"(.*) - at `(\$[^`]*)`", re.DOTALL)
"""Only at the end: the text before may quote the sender."""

_QUOTED = 200
"""How much of what the sender wrote an error repeats, characters."""

_NOT_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""NaN or an infinity in MessagePack; other values may look like it, but none fails to."""

_encoder = msgspec.json.Encoder()
_decode_plain = msgspec.json.Decoder().decode
_packer = msgspec.msgpack.Encoder()


def encode(value: Any) -> bytes:
    """Encode a message as JSON.

    Raises ValueError for NaN and infinity: JSON has none, and the `null` that msgspec writes in
    their place is refused by whoever reads it.
    """
    body = _encoder.encode(value)
    if b"null" in body and _may_be_not_finite(value) and (path := _not_finite(value, "$")):
        raise ValueError(f"{path} is NaN or infinite, which JSON can't carry: send None instead")
    return body


def _may_be_not_finite(value: Any) -> bool:
    """Tell it for the price of encoding: to walk through a large value takes ten times as long."""
    try:
        return _NOT_FINITE.search(_packer.encode(value)) is not None
    except (TypeError, ValueError, OverflowError):
        return True


def _not_finite(value: Any, path: str) -> str:
    """The path of the first float that is not finite; empty where there is none."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else path
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        parts = ((f"{path}.{key}", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = ((f"{path}[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, msgspec.Struct):
        parts = ((f"{path}.{name}", getattr(value, name)) for name in value.__struct_fields__)
    elif dataclasses.is_dataclass(value):
        names = (each.name for each in dataclasses.fields(value))
        parts = ((f"{path}.{name}", getattr(value, name)) for name in names)
    return next(filter(None, (_not_finite(part, where) for where, part in parts)), "")


class Decoder(Generic[T]):
    """Decodes one type; made once for each action."""

    def __init__(self, kind: type[T], *, strict: bool = False) -> None:
        """With `strict` a field that the type does not declare is a fault, too."""
        self._decode = msgspec.json.Decoder(kind).decode
        self._fields = Fields(kind) if strict else None

    def __call__(self, body: bytes) -> T:
        """Decode `body`; raises :class:`BadMessage` with the path of the fault."""
        try:
            if self._fields is None or not body:
                return self._decode(body or b"{}")
            value = self._decode(body)
            _refuse(self._fields.unknown(_decode_plain(body)))
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
        else:
            return value


def _refuse(unknown: Unknown | None) -> None:
    if unknown is not None:
        bad = BadMessage(
            f"Object contains unknown field `{_short(unknown.field)}`",
            path=_short(unknown.path),
            hint=_short(f"it may have {', '.join(unknown.declared) or 'no fields'}"),
        )
        bad.quotes = True
        raise bad


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
