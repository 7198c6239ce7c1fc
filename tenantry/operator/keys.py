"""Ed25519 key pairs in the text form that NATS uses (nkeys).

A seed is 58 characters that start with `S`, a public key 56 characters whose first letter tells
the kind. Source: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import nkeys
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from tenantry.errors import SetupError

_PUBLIC_LENGTH = 56
_SEED_HINT = (
    "a seed is one line of 58 characters that starts with S; restore the file from a backup"
)


class Kind(StrEnum):
    """What a key stands for; the value is the first letter of its public key."""

    OPERATOR = "O"
    ACCOUNT = "A"
    USER = "U"


_PREFIX = {
    Kind.OPERATOR: nkeys.PREFIX_BYTE_OPERATOR,
    Kind.ACCOUNT: nkeys.PREFIX_BYTE_ACCOUNT,
    Kind.USER: nkeys.PREFIX_BYTE_USER,
}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key pair; its `repr` shows the public key only, so it may appear in a log."""

    public_key: str
    seed: str = field(repr=False)
    _pair: Any = field(repr=False, compare=False)

    @classmethod
    def generate(cls, kind: Kind) -> KeyPair:
        """A new key pair from the operating system's randomness."""
        seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), _PREFIX[kind])
        return cls.from_seed(seed.decode())

    @classmethod
    def from_seed(cls, seed: str) -> KeyPair:
        """The key pair of a seed. Raises SetupError if the seed is damaged."""
        text = seed.strip()
        if not _checksum_holds(text):
            raise SetupError("not an nkey seed", hint=_SEED_HINT)
        try:
            pair = nkeys.from_seed(bytearray(text.encode()))
            public_key: str = pair.public_key.decode()
        except (nkeys.NkeysError, ValueError) as error:
            raise SetupError("not an nkey seed", hint=_SEED_HINT) from error
        return cls(public_key=public_key, seed=text, _pair=pair)

    def derive(self, label: str) -> KeyPair:
        """The key pair of the same kind that belongs to `label`.

        Whoever has this seed can make it again, so it need not be stored.
        """
        raw = hmac.digest(self.seed.encode(), label.encode(), "sha256")
        seed: bytes = nkeys.encode_seed(raw, _PREFIX[self.kind])
        return KeyPair.from_seed(seed.decode())

    @property
    def kind(self) -> Kind:
        """Operator, account or user."""
        return Kind(self.public_key[0])

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `data`."""
        signature: bytes = self._pair.sign(data)
        return signature


def verify(public_key: str, data: bytes, signature: bytes) -> bool:
    """Whether `signature` over `data` was made with the key pair of `public_key`."""
    if not is_public_key(public_key):
        return False
    try:
        VerifyKey(base64.b32decode(public_key)[1:-2]).verify(data, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def is_public_key(text: str, kind: Kind | None = None) -> bool:
    """Whether `text` is a whole public key, of `kind` if given."""
    if len(text) != _PUBLIC_LENGTH or (kind is not None and text[0] != kind.value):
        return False
    return text[0] in set(Kind) and _checksum_holds(text)


def _checksum_holds(text: str) -> bool:
    """The last two bytes are a CRC-16 of the rest; nkeys 0.2 never looks at them."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        return False
    return len(raw) > 2 and bool(nkeys.crc16_checksum(raw[:-2]) == raw[-2:])
