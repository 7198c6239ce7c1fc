"""A mesh in which nats-server's permissions of tenants' programs are switched off."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tenantry.operator import OperatorHome, claims, files, plant
from tenantry.operator.claims import Permission, ScopedKey, Template
from tenantry.operator.creds import render
from tenantry.operator.keys import KeyPair, Kind
from tests.isolation.attacker import user, user_jwt

EVERYTHING = Template(pub=Permission(allow=(">",)), sub=Permission(allow=(">",)))
_KEY = "edge-everything"


def open_home(path: Path) -> None:
    """A home like any other, with one more key: what it signs may do everything within EDGE."""
    OperatorHome.create(path)
    key = KeyPair.generate(Kind.ACCOUNT)
    plant.write_key(path, _KEY, key)
    file = path / "accounts" / "edge.jwt"
    before = files.read(file).strip()
    decoded = claims.decode(before)
    account = claims.read(decoded, claims.Account)
    scope = ScopedKey(key=key.public_key, role="everything", template=EVERYTHING)
    after = claims.encode(
        msgspec.structs.replace(account, signing_keys=(*account.signing_keys, scope)),
        subject=decoded.sub,
        signer=KeyPair.from_seed(files.read(path / "keys" / f"{plant.OPERATOR_KEY}.nk")),
        name=decoded.name,
        issued=decoded.iat,
    )
    files.write(file, after, secret=False)
    conf = path / "operator.conf"
    files.write(conf, files.read(conf).replace(before, after), secret=False)


def is_open(home: Path) -> bool:
    """Whether a home has that key; the one of a server that somebody else runs has not."""
    return (home / "keys" / f"{_KEY}.nk").exists()


def open_creds(home: OperatorHome) -> str:
    """Credentials of nobody that may publish and subscribe everything in EDGE."""
    key = KeyPair.from_seed(files.read(home.path / "keys" / f"{_KEY}.nk"))
    program = user()
    return render(user_jwt(home, program, key), program)
