"""Signing keys over time: the next one, one taken away, and the account JWTs that follow.

A `Draft` is all that a change needs, still in memory: first its accounts are pushed, then
:func:`commit` writes the files. nats-server keeps what was pushed over a restart, since the files
are never newer than that.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from tenantry.errors import SetupError
from tenantry.messages import VerifyKey
from tenantry.operator import claims, creds, files, plant
from tenantry.operator.certificate import certify
from tenantry.operator.home import OperatorHome
from tenantry.operator.keys import KeyPair, Kind
from tenantry.operator.server_conf import render_operator_conf

UPGRADE = "tenantry keys upgrade"


class Draft(NamedTuple):
    """A change of an operator's home that is not written yet."""

    manifest: plant.Manifest
    accounts: dict[str, str]
    """JWTs of the accounts that change, by name: sys, edge, mesh."""
    keys: Mapping[str, KeyPair] = MappingProxyType({})
    """New keys by file name."""
    renewed: frozenset[str] = frozenset()
    """Labels whose credentials files are issued anew."""
    certified: tuple[VerifyKey, ...] = ()
    operator: str = ""
    """The operator's JWT, where that changes."""


def label_of(kind: str) -> str:
    """The label of `tenants` or of a role."""
    return plant.TENANT_KEY if kind == "tenants" else plant.ROLE_KEYS[kind]


def live_but_newest(home: OperatorHome, label: str) -> list[plant.SigningKey]:
    """The keys of a label that are still good but sign no more."""
    return home.live_keys(label)[:-1]


@contextlib.contextmanager
def locked(home: OperatorHome) -> Iterator[None]:
    """One change at a time; raises SetupError while another is at work."""
    with (home.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SetupError(
                f"another command changes {home.path}", hint="wait until it has ended"
            ) from error
        yield


def next_key(home: OperatorHome, label: str) -> Draft:
    """A further key that signs from now on; those before stay good. Raises SetupError."""
    pair = KeyPair.generate(Kind.ACCOUNT)
    now = round(time.time(), 3)
    key = plant.SigningKey(key=pair.public_key, file="", created=now)
    key = msgspec.structs.replace(key, file=f"{label}-{key.id}")
    manifest = _with_keys(home, label, (*home.signing_keys(label), key))
    return Draft(manifest, _documents(home, manifest, label), {key.file: pair}, frozenset({label}))


def without_key(home: OperatorHome, label: str, key: plant.SigningKey) -> Draft:
    """The same without one of the keys. Raises SetupError where it is the one that signs."""
    if home.live_keys(label)[-1] == key:
        raise SetupError(
            f"the key {key.id} is the one that signs now",
            hint="rotate first: then another one signs",
        )
    revoked = msgspec.structs.replace(key, revoked=round(time.time(), 3))
    keys = tuple(revoked if each == key else each for each in home.signing_keys(label))
    manifest = _with_keys(home, label, keys)
    return Draft(manifest, _documents(home, manifest, label))


def next_operator_key(home: OperatorHome) -> Draft:
    """Another operator's signing key in place of the one of now: nothing that it signed counts.

    For nats-server that begins with its restart. Needs `keys/operator.nk`. Raises SetupError.
    """
    pair = KeyPair.generate(Kind.OPERATOR)
    key = plant.SigningKey(key=pair.public_key, file="", created=round(time.time(), 3))
    key = msgspec.structs.replace(key, file=f"{plant.OPERATOR_KEY}-{key.id}")
    manifest = _with_keys(home, plant.OPERATOR_KEY, (key,))
    documents = _documents(home, manifest, *plant.SIGNING, signer=pair)
    return Draft(manifest, documents, {key.file: pair}, operator=home.sign_operator(pair))


def outdated(home: OperatorHome) -> str:
    """Why this version can't work with a home; empty where it can."""
    if home.manifest.format < plant.FORMAT:
        return f"{home.path} was made by an older version"
    if changed := _changed(home):
        return f"{home.path} has other permissions than this version ({', '.join(changed)})"
    return ""


def require_current(home: OperatorHome) -> OperatorHome:
    """The same home; raises SetupError where it has to be upgraded first."""
    if why := outdated(home):
        raise SetupError(why, hint=f"run `{UPGRADE} --home {home.path}` once")
    return home


def upgraded(home: OperatorHome) -> Draft:
    """What brings a home to this version: accounts, and what an older one had not.

    Raises SetupError.
    """
    old = home.manifest
    signing = {label: home.signing_keys(label) for label in plant.SIGNING}
    manifest = msgspec.structs.replace(old, format=plant.FORMAT, signing=signing)
    if old.context_root:
        return Draft(manifest, _documents(home, manifest, *plant.SIGNING))
    root = KeyPair.generate(Kind.ACCOUNT)
    manifest = msgspec.structs.replace(manifest, context_root=root.public_key)
    now = round(time.time(), 3)
    records = tuple(
        # Routers sign with the newest: the order is kept.
        certify(plant.new_verify_key(home.path, kid, active=now + place / 1000), root)
        for place, kid in enumerate(old.context)
    )
    return Draft(
        manifest,
        _documents(home, manifest, *plant.SIGNING),
        {plant.ROOT_KEY: root},
        frozenset(plant.ROLE_KEYS.values()),
        records,
    )


def keep_keys(home: OperatorHome, draft: Draft) -> None:
    """Write the new seeds, before anything else is done. Raises SetupError."""
    for file, pair in draft.keys.items():
        plant.write_key(home.path, file, pair)


def drop_keys(home: OperatorHome, draft: Draft) -> None:
    """Remove them again: nothing came of it."""
    for file in draft.keys:
        (home.path / "keys" / f"{file}.nk").unlink(missing_ok=True)


def commit(home: OperatorHome, draft: Draft) -> list[Path]:
    """Write all of it, the manifest last; returns the credentials files that were issued anew.

    Raises SetupError.
    """
    for key in draft.certified:
        plant.write_verify_key(home.path, key)
    for name, jwt in draft.accounts.items():
        files.write(home.path / "accounts" / f"{name}.jwt", jwt, secret=False)
    if draft.operator:
        files.write(home.path / "operator.jwt", draft.operator, secret=False)
    operator = files.read(home.path / "operator.jwt").strip()
    preload = {
        home.account(name).sub: files.read(home.path / "accounts" / f"{name}.jwt").strip()
        for name in plant.ACCOUNTS
    }
    conf = render_operator_conf(operator, home.sys_public_key, preload)
    files.write(home.path / "operator.conf", conf, secret=False)
    home.write_manifest(draft.manifest)
    home.refresh()
    return [path for label in sorted(draft.renewed) for path in _reissue(home, label)]


def _with_keys(
    home: OperatorHome, label: str, keys: tuple[plant.SigningKey, ...]
) -> plant.Manifest:
    signing = {**home.manifest.signing, label: keys}
    return msgspec.structs.replace(home.manifest, signing=signing)


def _documents(
    home: OperatorHome, manifest: plant.Manifest, *labels: str, signer: KeyPair | None = None
) -> dict[str, str]:
    """The JWTs of the accounts that these labels belong to."""
    rendered = _rendered(home, manifest.signing)
    made = {}
    for name in dict.fromkeys(plant.place_of(label)[0] for label in labels):
        document = home.account(name)
        # EDGE is pushed all the time, later than this: a restart must not bring this one back.
        issued = document.iat + 1 if name == "edge" else max(int(time.time()), document.iat + 1)
        made[name] = home.sign_account(name, rendered[name], issued, signer)
    return made


def _rendered(
    home: OperatorHome, signing: Mapping[str, tuple[plant.SigningKey, ...]]
) -> dict[str, claims.Account]:
    """The accounts as this version has them, with the limits that they have."""
    public = {name: home.account(name).sub for name in plant.ACCOUNTS}
    live = {
        label: [key.key for key in signing[label] if key.revoked is None] for label in plant.SIGNING
    }
    return {
        name: msgspec.structs.replace(
            account, limits=claims.read(home.account(name), claims.Account).limits
        )
        for name, account in plant.render_accounts(public, live).items()
    }


def _changed(home: OperatorHome) -> list[str]:
    """The accounts that are not as this version has them."""
    rendered = _rendered(home, home.manifest.signing)
    return [
        name.upper()
        for name in plant.ACCOUNTS
        if claims.read(home.account(name), claims.Account) != rendered[name]
    ]


def _reissue(home: OperatorHome, label: str) -> list[Path]:
    """Issue the credentials files that a former key of the label has signed, each with a new user.

    Others in the folder are no concern of ours.
    """
    known = {key.key for key in home.signing_keys(label)}
    done = []
    for path in sorted((home.path / "creds").glob("*.creds")):
        try:
            old = creds.parse(files.read(path))
        except SetupError:
            continue
        if old.claims.iss in known:
            files.write(path, home.reissue(label, old), secret=True)
            done.append(path)
    return done
