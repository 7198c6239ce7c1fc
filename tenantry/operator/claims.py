"""NATS JWT v2: the claims of operators, accounts and users, signed and verified.

Field names are those of https://github.com/nats-io/jwt (v2). In an account,
a limit of `-1` is none and `0` is none at all.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from typing import Any, Literal, TypeVar

import msgspec

from tenantry.errors import SetupError
from tenantry.operator.keys import KeyPair, verify

_HEADER = b'{"typ":"JWT","alg":"ed25519-nkey"}'
_ALGORITHM = "ed25519-nkey"
_HINT = "a NATS JWT is one line of three parts joined by dots"
UNLIMITED = -1


class Permission(msgspec.Struct, frozen=True):
    """Subjects that may and may not be used; an empty `allow` together with no `deny` is all."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class Template(msgspec.Struct, frozen=True):
    """What every user of a scoped signing key may do; `-1` is unlimited (bytes for `payload`)."""

    pub: Permission
    sub: Permission
    subs: int = UNLIMITED
    data: int = UNLIMITED
    payload: int = UNLIMITED


class ScopedKey(msgspec.Struct, frozen=True, tag_field="kind", tag="user_scope"):
    """A signing key whose users get `template` and nothing of their own."""

    key: str
    role: str
    template: Template


class Export(msgspec.Struct, frozen=True, tag_field="type", tag="stream"):
    """A stream that other accounts may import.

    `account_token_position` (1-based) names the token that must be the importer's public key.
    """

    name: str
    subject: str
    account_token_position: int = 0


class Import(msgspec.Struct, frozen=True, tag_field="type", tag="stream"):
    """A stream of `account`, seen here as `local_subject` (as it is when that is empty)."""

    name: str
    subject: str
    account: str
    local_subject: str = ""


class Limits(msgspec.Struct, frozen=True):
    """Limits of an account; `-1` is unlimited. The four storage limits at 0 keep JetStream off."""

    subs: int = UNLIMITED
    data: int = UNLIMITED
    payload: int = UNLIMITED
    imports: int = UNLIMITED
    exports: int = UNLIMITED
    wildcards: bool = True
    conn: int = UNLIMITED
    leaf: int = UNLIMITED
    mem_storage: int = 0
    disk_storage: int = 0
    streams: int = 0
    consumer: int = 0


WITH_JETSTREAM = Limits(mem_storage=-1, disk_storage=-1, streams=-1, consumer=-1)
"""No limits, and JetStream on."""


class Operator(msgspec.Struct, frozen=True, tag_field="type", tag="operator"):
    """The `nats` part of an operator JWT."""

    signing_keys: tuple[str, ...] = ()
    system_account: str = ""
    version: Literal[2] = 2


class Account(msgspec.Struct, frozen=True, tag_field="type", tag="account"):
    """The `nats` part of an account JWT.

    `revocations` maps a user's public key to a time (unix seconds): its JWTs issued until then
    are void.
    """

    limits: Limits = Limits()
    imports: tuple[Import, ...] = ()
    exports: tuple[Export, ...] = ()
    signing_keys: tuple[ScopedKey, ...] = ()
    revocations: dict[str, int] = {}
    version: Literal[2] = 2


class User(msgspec.Struct, frozen=True, tag_field="type", tag="user"):
    """The `nats` part of a user JWT signed by a scoped key: the template says all the rest.

    The server refuses such a user if it carries any permission or limit, even an unlimited one.
    """

    issuer_account: str = ""
    tags: tuple[str, ...] = ()
    version: Literal[2] = 2


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decoded JWT whose signature held. `nats` is the part that depends on the type."""

    sub: str
    iss: str
    iat: int
    nats: dict[str, Any]
    name: str = ""
    jti: str = ""
    exp: int = 0


_Nats = TypeVar("_Nats", Operator, Account, User)


def encode(
    nats: Operator | Account | User,
    *,
    subject: str,
    signer: KeyPair,
    name: str = "",
    issued: int | None = None,
    expires: int | None = None,
) -> str:
    """A signed JWT of `subject` (a public key). `issued` and `expires` are unix seconds."""
    claims = Claims(
        sub=subject,
        iss=signer.public_key,
        iat=int(time.time()) if issued is None else issued,
        nats=msgspec.to_builtins(nats),
        name=name,
        exp=expires or 0,
    )
    claims = msgspec.structs.replace(claims, jti=_identify(claims))
    signed = _b64(_HEADER) + b"." + _b64(msgspec.json.encode(claims, order="sorted"))
    return (signed + b"." + _b64(signer.sign(signed))).decode()


def decode(jwt: str) -> Claims:
    """The claims of a JWT whose signature is that of its own issuer.

    Whether the issuer is to be trusted is the caller's question. Raises SetupError otherwise.
    """
    try:
        head, body, signature = jwt.strip().split(".")
        header = msgspec.json.decode(_unb64(head), type=dict[str, str])
        claims = msgspec.json.decode(_unb64(body), type=Claims)
        signed = f"{head}.{body}".encode()
        genuine = verify(claims.iss, signed, _unb64(signature))
    except (ValueError, binascii.Error, RecursionError, msgspec.MsgspecError) as error:
        raise SetupError("not a NATS JWT", hint=_HINT) from error
    if header.get("alg") != _ALGORITHM:
        raise SetupError(
            f"unknown JWT algorithm {header.get('alg')!r}", hint="only JWT v2 is known"
        )
    if not genuine:
        raise SetupError(f"the signature of the JWT of {claims.sub} is wrong", hint=_HINT)
    return claims


def read(claims: Claims, kind: type[_Nats]) -> _Nats:
    """The typed `nats` part. Raises SetupError if the JWT is of another type."""
    try:
        return msgspec.convert(claims.nats, kind)
    except msgspec.ValidationError as error:
        raise SetupError(f"the JWT of {claims.sub} is not of type {kind.__name__}") from error


def _identify(claims: Claims) -> str:
    """Base32 of SHA-512/256 over the claims without an id.

    Over all of them, not over the common fields only: nats-server's store takes two account JWTs
    with the same id for the same, and would drop the second of two pushes in one second.
    """
    digest = hashlib.new("sha512_256", msgspec.json.encode(claims, order="sorted")).digest()
    return base64.b32encode(digest).rstrip(b"=").decode()


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
