"""Credentials files: a user JWT and the user's seed in one text, as every NATS client takes it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tenantry import subjects
from tenantry.errors import SetupError
from tenantry.operator import claims as jwts
from tenantry.operator import files
from tenantry.operator.keys import KeyPair

_BLOCK = re.compile(r"-{3,}BEGIN ([A-Z ]+)-{3,}\s+(\S+)\s+-{3,}END ([A-Z ]+)-{3,}")
_JWT, _SEED = "NATS USER JWT", "USER NKEY SEED"
_HINT = "expected a .creds file with a NATS USER JWT and a USER NKEY SEED block"
_TENANT_TAG = "tenant:"
_ROOT_TAG = "context-root:"
_SERVICE_TAG = "service:"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A parsed credentials file; its `repr` holds no secret."""

    jwt: str = field(repr=False)
    key: KeyPair
    claims: jwts.Claims = field(repr=False)
    user: jwts.User


def render(jwt: str, key: KeyPair) -> str:
    """The text of a credentials file."""
    return (
        f"-----BEGIN {_JWT}-----\n{jwt}\n------END {_JWT}------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n"
        "NKEYs are sensitive and should be treated as secrets.\n\n"
        f"-----BEGIN {_SEED}-----\n{key.seed}\n------END {_SEED}------\n"
    )


def parse(text: str) -> Credentials:
    """The parts of a credentials file. Raises SetupError if they are missing or do not fit."""
    blocks = {name: body for name, body, end in _BLOCK.findall(text) if name == end}
    if _JWT not in blocks or _SEED not in blocks:
        raise SetupError("not a NATS credentials file", hint=_HINT)
    key = KeyPair.from_seed(blocks[_SEED])
    claims = jwts.decode(blocks[_JWT])
    if claims.sub != key.public_key:
        raise SetupError(
            "the seed in the credentials file does not belong to its JWT",
            hint="the two blocks come from different files; issue the credentials again",
        )
    return Credentials(jwt=blocks[_JWT], key=key, claims=claims, user=jwts.read(claims, jwts.User))


def load(path: Path) -> str:
    """The text of a credentials file. Raises SetupError if it can't be read."""
    if not path.is_file():
        raise SetupError(
            f"no credentials file {path}", hint="name one, or make one with `tenantry tenants`"
        )
    return files.read(path)


def tenant_of(text: str) -> str | None:
    """The tenant whose credentials these are; None for those of the mesh.

    Raises SetupError, also for a tenant that can't be: nats-server would take `*` for all of them.
    """
    named = {tag.removeprefix(_TENANT_TAG) for tag in parse(text).user.tags if _is_tenant(tag)}
    if len(named) > 1 or not all(map(subjects.is_tenant, named)):
        raise SetupError(
            "the credentials file is not of one tenant", hint="have the credentials issued again"
        )
    return named.pop() if named else None


def tenant_among(tags: Iterable[str]) -> str | None:
    """The tenant that the tags of a user name."""
    return next((tag.removeprefix(_TENANT_TAG) for tag in tags if _is_tenant(tag)), None)


def _is_tenant(tag: str) -> bool:
    return tag.startswith(_TENANT_TAG)


def tenant_tag(tenant: str) -> str:
    """The tag that binds a user JWT to a tenant."""
    return f"{_TENANT_TAG}{tenant}"


def root_tag(public_key: str) -> str:
    """The tag that tells a user of the mesh which root signs the context keys."""
    return f"{_ROOT_TAG}{public_key.lower()}"  # tags are lower case


def own_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags of a user of the mesh that are not about the root."""
    return tuple(tag for tag in tags if not tag.startswith(_ROOT_TAG))


def root_of(text: str) -> str | None:
    """The root of the context keys that credentials name, if any. Raises SetupError."""
    for tag in parse(text).user.tags:
        if tag.startswith(_ROOT_TAG):
            return tag.removeprefix(_ROOT_TAG).upper()
    return None


def services_of(text: str) -> frozenset[str]:
    """The services that the holder may run. Raises SetupError."""
    tags = parse(text).user.tags
    return frozenset(tag.removeprefix(_SERVICE_TAG) for tag in tags if tag.startswith(_SERVICE_TAG))


def service_tags(services: Iterable[str]) -> tuple[str, ...]:
    """The tags that bind a user JWT to services."""
    return tuple(f"{_SERVICE_TAG}{service}" for service in sorted(set(services)))


def check_covers(path: Path, services: Iterable[str]) -> None:
    """Raise :class:`SetupError` where credentials are not for all of these services."""
    held = services_of(load(path))
    if missing := sorted(set(services) - held):
        issue = " ".join(f"--service {name}" for name in sorted(held | set(missing)))
        raise SetupError(
            f"{path} holds credentials for {', '.join(sorted(held)) or 'no service'}, "
            f"not for {', '.join(missing)}",
            hint=f"issue some with `tenantry nats creds service {issue}`",
        )


def public_key_of(text: str) -> str:
    """The public key of the user: what is revoked, and the mesh user's inbox. Raises SetupError."""
    return parse(text).key.public_key
