"""The files of an operator's home, read and verified as a whole."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tenantry.errors import SetupError
from tenantry.operator import claims, files, plant

BACKUP = "restore it from a backup, or make a new home elsewhere"


def stamp(home: Path) -> tuple[int, int]:
    """Changes with each change of the home: its manifest is written last."""
    try:
        status = (home / "home.json").stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_ino


def read(home: Path) -> tuple[plant.Manifest, claims.Claims, dict[str, claims.Claims]]:
    """Manifest, operator and accounts, verified. Raises SetupError."""
    manifest = read_manifest(home)
    operator = read_jwt(home / "operator.jwt")
    trusted = {operator.sub, *claims.read(operator, claims.Operator).signing_keys}
    if operator.iss != operator.sub:
        raise SetupError(f"{home / 'operator.jwt'} is not self-signed", hint=BACKUP)
    documents = {}
    for account in plant.ACCOUNTS:
        file = home / "accounts" / f"{account}.jwt"
        documents[account] = read_jwt(file)
        claims.read(documents[account], claims.Account)
        if documents[account].iss not in trusted:
            raise SetupError(f"{file} is of another operator", hint=BACKUP)
    return manifest, operator, documents


def refuse_used(home: Path) -> None:
    """Raise SetupError where a new home would overwrite something."""
    try:
        used = home.exists() and (not home.is_dir() or any(home.iterdir()))
    except OSError as error:
        raise cannot_create(home, error) from error
    if used and (home / "home.json").exists():
        raise SetupError(
            f"{home} is an operator home already", hint="load it, or choose another directory"
        )
    if used:
        raise SetupError(f"{home} exists and is not empty", hint="choose another directory")


def cannot_create(home: Path, error: OSError) -> SetupError:
    """The error for a home that can't be made."""
    return SetupError(
        f"cannot create {home}: {error.strerror or error}", hint="choose a directory you may write"
    )


def read_manifest(home: Path) -> plant.Manifest:
    """`home.json`. Raises SetupError."""
    path = home / "home.json"
    if not path.exists() and home.is_dir():
        raise SetupError(f"{home} is not an operator home", hint="`tenantry nats init` makes one")
    try:
        manifest = msgspec.json.decode(files.read(path), type=plant.Manifest)
    except msgspec.MsgspecError as error:
        raise SetupError(f"{path} is corrupt", hint=BACKUP) from error
    if manifest.format > plant.FORMAT:
        raise SetupError(
            f"{home} has format {manifest.format}, this version knows {plant.FORMAT}",
            hint="it was made by a newer Tenantry; upgrade this one",
        )
    return manifest


def read_jwt(path: Path) -> claims.Claims:
    """A signed document. Raises SetupError."""
    try:
        return claims.decode(files.read(path))
    except SetupError as error:
        raise SetupError(f"{path}: {error.message}", hint=error.hint or BACKUP) from error
