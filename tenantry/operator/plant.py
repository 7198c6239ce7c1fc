"""The first contents of an operator home: all keys, the account JWTs, the configuration."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from nacl.signing import SigningKey as SigningKeySeed

from tenantry.errors import SetupError
from tenantry.messages import VerifyKey
from tenantry.operator import accounts, claims, files, roles
from tenantry.operator.certificate import certify
from tenantry.operator.claims import ScopedKey
from tenantry.operator.keys import KeyPair, Kind
from tenantry.operator.server_conf import ServerOptions, render_operator_conf, render_server_conf

FORMAT = 2
ACCOUNTS = ("sys", "edge", "mesh")
OPERATOR_KEY = "operator-signing"
TENANT_KEY = "edge-tenant"
ROOT_KEY = "context-root"
ROLE_KEYS = {role: f"mesh-{role}" for role in roles.MESH_ROLES} | {"sys": "sys-control"}
"""The scoped signing key of each role, by its file name in `keys/`."""

SIGNING = (TENANT_KEY, *ROLE_KEYS.values())
"""The keys that sign credentials."""


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """One of the keys that sign, or signed, the credentials of one kind; times are unix seconds."""

    key: str
    """Its public half."""
    file: str
    """Its seed is `keys/<file>.nk`."""
    created: float
    revoked: float | None = None

    @property
    def id(self) -> str:
        """What commands call it: the end of its public half, in lower case."""
        return self.key[-8:].lower()


class Manifest(msgspec.Struct, frozen=True):
    """`home.json`: `context` lists the key ids of the context keys, newest last."""

    format: int
    name: str = ""
    context: tuple[str, ...] = ()
    context_root: str = ""
    """Public key of the root that certifies the context keys."""
    signing: dict[str, tuple[SigningKey, ...]] = {}
    """The signing keys by label, newest last; the newest that is not revoked signs."""


def place_of(label: str) -> tuple[str, str]:
    """The account that a signing key belongs to, and its role there."""
    if label == TENANT_KEY:
        return "edge", "tenant"
    if label == ROLE_KEYS["sys"]:
        return "sys", "control"
    return "mesh", label.removeprefix("mesh-")


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
    now = round(time.time(), 3)
    kid = add_context_key(home)
    first = new_verify_key(home, kid, active=now)
    write_verify_key(home, certify(first, keys[ROOT_KEY]))
    signing: dict[str, tuple[SigningKey, ...]] = {
        label: (SigningKey(key=keys[label].public_key, file=label, created=now),)
        for label in SIGNING
    }
    write_manifest(home, Manifest(FORMAT, name, (kid,), keys[ROOT_KEY].public_key, signing))


def write_key(home: Path, label: str, key: KeyPair) -> None:
    """Store a seed as `keys/<label>.nk`."""
    files.write(home / "keys" / f"{label}.nk", key.seed + "\n", secret=True)


def write_manifest(home: Path, manifest: Manifest) -> None:
    """Store `home.json`."""
    text = msgspec.json.format(msgspec.json.encode(manifest)).decode() + "\n"
    files.write(home / "home.json", text, secret=False)


def add_context_key(home: Path) -> str:
    """Store a new seed in `context/` and return its key id. The manifest is not touched."""
    seed = bytes(SigningKeySeed.generate())
    kid = kid_of(seed)
    text = base64.urlsafe_b64encode(seed).decode() + "\n"
    files.write(home / "context" / f"{kid}.seed", text, secret=True)
    return kid


def new_verify_key(home: Path, kid: str, *, active: float | None = None) -> VerifyKey:
    """The record of a context key, not certified yet. Raises SetupError."""
    public = SigningKeySeed(read_context_key(home, kid)).verify_key
    text = base64.urlsafe_b64encode(bytes(public)).rstrip(b"=").decode()
    return VerifyKey(kid=kid, key=text, created=round(time.time(), 3), active=active, serial=1)


def write_verify_key(home: Path, key: VerifyKey) -> None:
    """Store a record as `context/<kid>.json`; it is signed and public."""
    text = msgspec.json.format(msgspec.json.encode(key)).decode() + "\n"
    files.write(home / "context" / f"{key.kid}.json", text, secret=False)


def read_verify_key(home: Path, kid: str) -> VerifyKey:
    """The record of a key id. Raises SetupError."""
    path = home / "context" / f"{kid}.json"
    try:
        return msgspec.json.decode(files.read(path), type=VerifyKey)
    except msgspec.MsgspecError as error:
        raise SetupError(f"{path} is corrupt", hint="restore it from a backup") from error


def kid_of(seed: bytes) -> str:
    """The key id of a 32-byte Ed25519 seed: 8 hex digits of its public key's SHA-256."""
    return hashlib.sha256(bytes(SigningKeySeed(seed).verify_key)).hexdigest()[:8]


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
    kinds |= dict.fromkeys((*ACCOUNTS, ROOT_KEY, *SIGNING), Kind.ACCOUNT)
    return {label: KeyPair.generate(kind) for label, kind in kinds.items()}


def render_accounts(
    public: Mapping[str, str], signing: Mapping[str, Sequence[str]]
) -> dict[str, claims.Account]:
    """SYS, EDGE and MESH as this version has them.

    `public` has the public keys of the accounts, `signing` those of the signing keys, by label.
    """

    def all_of(label: str, scoped: ScopedKey) -> tuple[ScopedKey, ...]:
        return tuple(msgspec.structs.replace(scoped, key=key) for key in signing[label])

    built = {
        "sys": accounts.sys_account(""),
        "edge": accounts.edge_account(public["mesh"], ""),
        "mesh": accounts.mesh_account(
            public["mesh"], public["edge"], public["sys"], dict.fromkeys(roles.MESH_ROLES, "")
        ),
    }
    labels = {
        "sys": (ROLE_KEYS["sys"],),
        "edge": (TENANT_KEY,),
        "mesh": tuple(ROLE_KEYS[role] for role in roles.MESH_ROLES),
    }
    return {
        name: msgspec.structs.replace(
            account,
            signing_keys=tuple(
                key
                for label, scoped in zip(labels[name], account.signing_keys, strict=True)
                for key in all_of(label, scoped)
            ),
        )
        for name, account in built.items()
    }


def _accounts(keys: dict[str, KeyPair], name: str) -> dict[str, str]:
    public = {label: key.public_key for label, key in keys.items()}
    built = render_accounts(public, {label: (public[label],) for label in SIGNING})
    return {
        account: claims.encode(
            nats,
            subject=public[account],
            signer=keys[OPERATOR_KEY],
            name=f"{name}-{account}",
        )
        for account, nats in built.items()
    }
