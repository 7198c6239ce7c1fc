"""The first contents of an operator home: all keys, the account JWTs, the configuration."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from tenantry.errors import SetupError
from tenantry.operator import accounts, claims, files, roles
from tenantry.operator.keys import KeyPair, Kind
from tenantry.operator.server_conf import ServerOptions, render_operator_conf, render_server_conf

FORMAT = 1
ACCOUNTS = ("sys", "edge", "mesh")
OPERATOR_KEY = "operator-signing"
TENANT_KEY = "edge-tenant"
ROLE_KEYS = {role: f"mesh-{role}" for role in roles.MESH_ROLES} | {"sys": "sys-control"}
"""The scoped signing key of each role, by its file name in `keys/`."""


class Manifest(msgspec.Struct, frozen=True):
    """`home.json`: `context` lists the key ids of the context keys, newest last."""

    format: int
    name: str = ""
    context: tuple[str, ...] = ()


def plant(home: Path, name: str, server: ServerOptions) -> None:
    """Fill the directory `home`. Raises SetupError."""
    keys = _generate()
    for label, key in keys.items():
        write_key(home, label, key)
    documents = _accounts(keys, name)
    for account, jwt in documents.items():
        files.write(home / "accounts" / f"{account}.jwt", jwt, secret=False)
    operator_jwt = claims.encode(
        claims.Operator(
            signing_keys=(keys[OPERATOR_KEY].public_key,), system_account=keys["sys"].public_key
        ),
        subject=keys["operator"].public_key,
        signer=keys["operator"],
        name=name,
    )
    files.write(home / "operator.jwt", operator_jwt, secret=False)
    preload = {keys[account].public_key: jwt for account, jwt in documents.items()}
    conf = render_operator_conf(operator_jwt, keys["sys"].public_key, preload)
    files.write(home / "operator.conf", conf, secret=False)
    files.write(home / "server.conf", render_server_conf(server), secret=False)
    write_manifest(home, Manifest(FORMAT, name, (add_context_key(home),)))


def write_key(home: Path, label: str, key: KeyPair) -> None:
    """Store a seed as `keys/<label>.nk`."""
    files.write(home / "keys" / f"{label}.nk", key.seed + "\n", secret=True)


def write_manifest(home: Path, manifest: Manifest) -> None:
    """Store `home.json`."""
    text = msgspec.json.format(msgspec.json.encode(manifest)).decode() + "\n"
    files.write(home / "home.json", text, secret=False)


def add_context_key(home: Path) -> str:
    """Store a new seed in `context/` and return its key id. The manifest is not touched."""
    seed = bytes(SigningKey.generate())
    kid = kid_of(seed)
    text = base64.urlsafe_b64encode(seed).decode() + "\n"
    files.write(home / "context" / f"{kid}.seed", text, secret=True)
    return kid


def kid_of(seed: bytes) -> str:
    """The key id of a 32-byte Ed25519 seed: 8 hex digits of its public key's SHA-256."""
    return hashlib.sha256(bytes(SigningKey(seed).verify_key)).hexdigest()[:8]


def read_context_key(home: Path, kid: str) -> bytes:
    """The 32-byte seed of a key id. Raises SetupError."""
    path = home / "context" / f"{kid}.seed"
    text = files.read(path)
    try:
        seed = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
        genuine = kid_of(seed) == kid
    except ValueError:
        genuine = False
    if not genuine:
        raise SetupError(f"{path} is corrupt", hint="restore it from a backup")
    return seed


def _generate() -> dict[str, KeyPair]:
    kinds = {"operator": Kind.OPERATOR, OPERATOR_KEY: Kind.OPERATOR}
    kinds |= dict.fromkeys((*ACCOUNTS, TENANT_KEY, *ROLE_KEYS.values()), Kind.ACCOUNT)
    return {label: KeyPair.generate(kind) for label, kind in kinds.items()}


def _accounts(keys: dict[str, KeyPair], name: str) -> dict[str, str]:
    public = {label: key.public_key for label, key in keys.items()}
    built = {
        "sys": accounts.sys_account(public[ROLE_KEYS["sys"]]),
        "edge": accounts.edge_account(public["mesh"], public[TENANT_KEY]),
        "mesh": accounts.mesh_account(
            public["mesh"],
            public["edge"],
            public["sys"],
            {role: public[ROLE_KEYS[role]] for role in roles.MESH_ROLES},
        ),
    }
    return {
        account: claims.encode(
            nats,
            subject=public[account],
            signer=keys[OPERATOR_KEY],
            name=f"{name}-{account}",
        )
        for account, nats in built.items()
    }
