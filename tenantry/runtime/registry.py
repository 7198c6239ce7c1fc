"""Entering a service into the catalogue, and refusing what would break those that run."""

from __future__ import annotations

import contextlib

import msgspec

from tenantry.bus import Bucket, Bus
from tenantry.errors import BadMessage, Conflict, DeclarationError
from tenantry.messages import Alive, Declaration
from tenantry.subjects import article
from tenantry.wire.codec import Decoder, encode

BUCKET = "catalogue"
_ATTEMPTS = 5


class _Pong(msgspec.Struct, frozen=True):
    name: str
    version: str
    id: str


_decode_pong = Decoder(_Pong)


def key(service: str, version: str) -> str:
    """Where the catalogue keeps a version of a service."""
    return f"{service}.{version}"


async def living(bus: Bus, service: str = "", *, wait: float = 0.3) -> list[Alive]:
    """The instances of `service`, or of all, that answer now."""
    found = []
    for answer in await bus.gather(f"$SRV.PING.{service}".rstrip("."), wait=wait):
        with contextlib.suppress(BadMessage):  # not one of ours, whatever it is
            pong = _decode_pong(answer.data)
            found.append(Alive(service=pong.name, version=pong.version, instance=pong.id))
    return found


async def register(bus: Bus, declaration: Declaration, live: set[str]) -> None:
    """Enter a declaration beside the `live` versions.

    Raises :class:`DeclarationError` where one that runs contradicts it.

    The same version must mean the same contract while it runs; versions that run side by side
    must agree on what kind each action is.
    """
    _refuse_large(bus, declaration)
    bucket = Bucket(bus, BUCKET, Declaration)
    for version in live - {declaration.version}:
        other = await bucket.get(key(declaration.service, version))
        if other is not None:
            _refuse_contradiction(declaration, other.value)
    for _ in range(_ATTEMPTS):
        entry = await bucket.get(key(declaration.service, declaration.version))
        # As it is stored: a default that is a tuple comes back as a list.
        if entry is not None and encode(entry.value) == encode(declaration):
            return
        if entry is not None and entry.value.digest != declaration.digest:
            _refuse_other_contract(declaration, live)
        name = key(declaration.service, declaration.version)
        try:
            if entry is None:
                await bucket.create(name, declaration)
            else:
                await bucket.update(name, declaration, entry.revision)
        except Conflict:
            continue
        return
    raise DeclarationError(
        f"service {declaration.service} {declaration.version}: others keep changing its entry",
        hint="start its replicas from one build",
    )


def _refuse_large(bus: Bus, declaration: Declaration) -> None:
    size = len(encode(declaration))
    if size > bus.max_body:
        raise DeclarationError(
            f"the declaration of service {declaration.service} {declaration.version} has {size} "
            f"bytes, and NATS takes {bus.max_body}: names, descriptions and schemas of all actions",
            hint="divide the service, or shorten its types and docstrings",
        )


def _refuse_other_contract(declaration: Declaration, live: set[str]) -> None:
    if declaration.version in live:
        raise DeclarationError(
            f"service {declaration.service} {declaration.version} runs already with other "
            "actions or schemas",
            hint="raise the version, or stop the instances that run",
        )


def _refuse_contradiction(new: Declaration, running: Declaration) -> None:
    kinds = {action.name: action.kind for action in running.actions}
    for action in new.actions:
        kind = kinds.get(action.name, action.kind)
        if kind != action.kind:
            raise DeclarationError(
                f"service {new.service} {new.version} declares {action.name} as "
                f"{article(action.kind)} {action.kind}, but {running.version}, which runs, as "
                f"{article(kind)} {kind}",
                hint="give the action another name, or stop the other version",
            )
