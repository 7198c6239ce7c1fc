"""The signed tenant context: who a message belongs to.

A JWT in compact form (RFC 7519) signed with Ed25519 (RFC 8037). The algorithm is fixed by the
key, never read from the token. One token serves one (tenant, principal) for minutes, so both
sides cache it: minting costs about 30 µs and verifying about 65 µs, the usual look-up 0.2 µs.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from itertools import islice, takewhile
from typing import NamedTuple, Protocol, TypedDict, Unpack

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tenantry import clock, subjects
from tenantry.context.claims import Claims, Header, decode_claims, decode_header
from tenantry.errors import BadContext, UnknownKey

LIFETIME = 300.0
"""How long a token is valid, seconds: longer than any request, short enough to go stale."""

REMINT = 120.0
"""The router mints anew after this many seconds, so that a token it sends has most of its life.

With many tenants this is what a message costs more: who sends less often than that needs a new
token each time, and every worker has to verify it.
"""

SKEW = 30.0
"""How far the clocks of two machines may be apart, seconds."""

_TYPE = "tenantry-context+jwt"
_MAX = 4096
_CACHE = 131_072
_SWEEP = 10.0


class Terms(Protocol):
    """What a plan says of its tenants' messages, and a context of the plan it was made by."""

    @property
    def retention(self) -> int: ...
    @property
    def weight(self) -> int: ...
    @property
    def concurrency(self) -> int: ...


class Minted(TypedDict, total=False):
    """The same as arguments of :meth:`Minter.mint`."""

    retention: int
    weight: int
    concurrency: int


class Options(Minted, total=False):
    """What :meth:`Minter.mint` may be told besides."""

    roles: tuple[str, ...]
    cell: str
    now: float | None


class Mints(Protocol):
    """Signs contexts: with one key, or with the one of the moment."""

    @property
    def kid(self) -> str: ...
    def mint(self, tenant: str, plan: str, principal: str, **options: Unpack[Options]) -> str: ...


def terms(of: Terms | None) -> Minted:
    """What to mint with; nothing for a plan that is gone."""
    if of is None:
        return {}
    return {"retention": of.retention, "weight": of.weight, "concurrency": of.concurrency}


class Minter:
    """Signs contexts with one key; only the router and the control plane have one."""

    def __init__(self, kid: str, seed: bytes, *, lifetime: float = LIFETIME) -> None:
        self.kid = kid
        self._key = SigningKey(seed)
        self._lifetime = lifetime
        self._head = _b64(msgspec.json.encode(Header("EdDSA", kid, _TYPE)))

    @property
    def public_key(self) -> str:
        """The verify key, base64url without padding."""
        return _b64(bytes(self._key.verify_key)).decode()

    def mint(
        self,
        tenant: str,
        plan: str,
        principal: str,
        *,
        roles: tuple[str, ...] = (),
        cell: str = "",
        retention: int = 0,
        weight: int = 1,
        concurrency: int = 0,
        now: float | None = None,
    ) -> str:
        """Sign a context that is valid from `now` for this minter's lifetime."""
        issued = round(clock.now() if now is None else now, 3)
        claims = Claims(
            tenant=tenant,
            plan=plan,
            principal=principal,
            roles=roles,
            cell=cell,
            retention=retention,
            weight=weight,
            concurrency=concurrency,
            issued=issued,
            expires=issued + self._lifetime,
        )
        signed = self._head + b"." + _b64(msgspec.json.encode(claims))
        return (signed + b"." + _b64(self._key.sign(signed).signature)).decode()


class Trusted(NamedTuple):
    """A key that contexts verify with; times are seconds since the epoch."""

    key: str
    """Its public half, base64url."""
    retired: float | None = None
    """What was issued later is refused."""
    void: float | None = None
    """What comes, or was stored, from then on is refused; None for a key that is not revoked."""


class _Key(NamedTuple):
    verify: VerifyKey
    retired: float | None
    void: float | None


class KeyRing:
    """The keys that contexts verify with, by key id, and what they have verified.

    `verify` is what every hop calls. A key that is retired still verifies what was issued before,
    one that is revoked at most what was stored before.
    """

    def __init__(self, *, size: int = _CACHE) -> None:
        self._keys: dict[str, _Key] = {}
        self._seen: dict[str, Claims] = {}
        self._size = size
        self._swept = time.monotonic()

    def replace(self, keys: Mapping[str, Trusted]) -> list[str]:
        """Take these keys, by key id, for the former ones.

        Returns the ids of those that are no keys; one of them must not keep the others out.
        """
        self._keys, bad = {}, []
        for kid, each in keys.items():
            try:
                self._keys[kid] = _Key(VerifyKey(_unb64(each.key)), each.retired, each.void)
            except ValueError:
                bad.append(kid)
        self._seen.clear()
        return bad

    def __len__(self) -> int:
        return len(self._keys)

    def verify(self, token: str | None, tenant: str, at: float) -> Claims:
        """The claims of `token`, which must be of `tenant` and valid at the time `at`.

        Raises :class:`BadContext`, never saying more than the kind of fault.
        """
        if not token:
            raise BadContext("the message carries no tenant context")
        claims = self._seen.get(token)
        if claims is None:
            claims, void = self._check(token)
            if void is None:
                self._remember(token, claims)
            elif at >= void:
                raise BadContext("the tenant context is signed by a revoked key")
        if claims.tenant != tenant:
            raise BadContext("the tenant context is not of the subject's tenant")
        if not claims.issued - SKEW <= at <= claims.expires + SKEW:
            raise BadContext("the tenant context was not valid at this time")
        return claims

    def owner(self, token: str) -> str:
        """Whose a token is that was verified before, if only for another tenant; else empty."""
        claims = self._seen.get(token)
        return claims.tenant if claims is not None else ""

    def _remember(self, token: str, claims: Claims) -> None:
        if len(self._seen) >= self._size or time.monotonic() - self._swept > _SWEEP:
            self._forget()
        self._seen[token] = claims

    def _forget(self) -> None:
        """Drop the first that came: those that no router sends any more, and more if it is full."""
        self._swept = time.monotonic()
        oldest = clock.now() - REMINT - SKEW
        stale = sum(1 for _ in takewhile(lambda each: each.issued < oldest, self._seen.values()))
        if len(self._seen) >= self._size:
            stale = max(stale, self._size // 8, 1)
        for token in list(islice(self._seen, stale)):
            del self._seen[token]

    def _check(self, token: str) -> tuple[Claims, float | None]:
        """What it says, and from when on its key is void."""
        if len(token) > _MAX:
            raise BadContext("the tenant context is too long")
        parts = token.encode("ascii", "replace").split(b".")
        try:
            head, body, signature = parts
            header = decode_header(_unb64(head))
            if header.alg != "EdDSA" or header.typ != _TYPE:
                raise BadContext("the tenant context is of another kind")
            if (key := self._keys.get(header.kid)) is None:
                raise UnknownKey("the tenant context is signed by an unknown key")
            key.verify.verify(head + b"." + body, _unb64(signature))
            claims = decode_claims(_unb64(body))
        except (ValueError, TypeError, RecursionError, BadSignatureError, msgspec.MsgspecError):
            raise BadContext("the tenant context is malformed or forged") from None
        if not subjects.is_tenant(claims.tenant):
            raise BadContext("the tenant context names no tenant")
        if claims.weight < 1 or claims.concurrency < 0:
            raise BadContext("the tenant context has no weight")
        if key.retired is not None and claims.issued > key.retired:
            raise BadContext("the tenant context is signed by a retired key")
        return claims, key.void


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _unb64(text: str | bytes) -> bytes:
    """The bytes of base64url without padding, in the one way of writing them."""
    raw = text.encode("ascii") if isinstance(text, str) else text
    if raw != raw.translate(None, b"+/= \t\r\n"):
        raise ValueError("not base64url without padding")
    data = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    if _b64(data) != raw:
        raise ValueError("not base64url: its last letter has bits that mean nothing")
    return data
