"""Bodies: typed JSON in, typed JSON out, with the path of the fault when it does not fit."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from tenantry.errors import BadMessage

T = TypeVar("T")

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
            text, _, path = str(error).partition(" - at `")
            raise BadMessage(text, path=path.rstrip("`") or "$") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadMessage(
                f"the body is not JSON: {str(error)[:200]}", hint="send a JSON object in UTF-8"
            ) from None
