"""The tenant checks that a team would write by hand: a signed token, its tenant, a rate.

The token is a JWT (Ed25519, by PyJWT), checked once and then remembered by its text. Rates are one
bucket for each tenant, in memory. There are no plans, no revocation and no change of keys.
"""

from __future__ import annotations

import time
from functools import lru_cache

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HEADER = "X-Tenant-Token"
_KEY = Ed25519PrivateKey.from_private_bytes(b"a key for nothing but benchmarks")
_PUBLIC = _KEY.public_key()
_RATE, _BURST = 1e6, 1e6


class Refused(Exception):
    """The message is not of the tenant that it says, or there are too many."""


class Claims(msgspec.Struct, frozen=True):
    """Who sends, and until when, seconds since the epoch."""

    tenant: str
    sub: str
    roles: list[str]
    exp: float


def token(tenant: str) -> str:
    """What a client of a tenant sends; it is valid for an hour."""
    claims = Claims(tenant, f"program@{tenant}.example", ["member"], time.time() + 3600)
    return jwt.encode(msgspec.to_builtins(claims), _KEY, algorithm="EdDSA")


@lru_cache(maxsize=65_536)
def verified(text: str) -> Claims:
    """The claims of a token that is signed as it must be."""
    try:
        return msgspec.convert(jwt.decode(text, _PUBLIC, algorithms=["EdDSA"]), Claims)
    except (jwt.InvalidTokenError, msgspec.ValidationError) as error:
        raise Refused("bad token") from error


def authenticate(tenant: str, text: str) -> Claims:
    """The claims of a token that is of this tenant and still valid."""
    claims = verified(text)
    if claims.tenant != tenant:
        raise Refused("the token is of another tenant")
    if claims.exp < time.time():
        raise Refused("the token has expired")
    return claims


_buckets: dict[str, tuple[float, float]] = {}


def admit(tenant: str) -> None:
    """Take one from the tenant's bucket."""
    now = time.monotonic()
    left, at = _buckets.get(tenant, (_BURST, now))
    left = min(_BURST, left + (now - at) * _RATE)
    if left < 1.0:
        raise Refused("too many requests")
    _buckets[tenant] = (left - 1.0, now)
