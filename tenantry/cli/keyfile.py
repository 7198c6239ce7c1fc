"""A new credentials file: made before anything is asked for, filled when it is granted."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tenantry.control import Control
from tenantry.errors import DeadlineExceeded, Rejection, SetupError, Unavailable
from tenantry.messages import RevokeCredentials, TenantAnswer
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind

_ROOM = 8192
"""More than any credentials file takes, bytes."""

_SEED = re.compile(r"^SU[A-Z2-7]{56}$", re.ASCII | re.MULTILINE)


@contextmanager
def reserve(path: Path) -> Iterator[Callable[[str], None]]:
    """Make the file, for its owner alone, with room on the disk; yields what fills it.

    It goes again if it is not filled, so nothing is asked of the control plane that could not
    be kept. Raises :class:`SetupError` where the file exists or can't be made.
    """
    filled = False

    def fill(text: str) -> None:
        nonlocal filled
        _overwrite(path, text.encode())
        filled = True

    _make(path, "")
    try:
        yield fill
    finally:
        if not filled:
            path.unlink(missing_ok=True)


@contextmanager
def reserve_key(path: Path) -> Iterator[tuple[KeyPair, Callable[[str], None]]]:
    """As :func:`reserve`, with a key pair that is in the file before anything is asked for.

    Where a former try was cut off, it is the one that is there already, so what was asked for can
    be asked for again. The file goes when the control plane refuses.
    """
    key = _begun(path)
    if key is None:
        key = KeyPair.generate(Kind.USER)
        _make(path, creds_files.render("", key))
    try:
        yield key, lambda text: _overwrite(path, text.encode())
    except (Unavailable, DeadlineExceeded):
        raise  # nobody knows whether it was done: the key is needed to ask again
    except (Rejection, SetupError):
        path.unlink(missing_ok=True)
        raise


async def keep(mesh: Control, tenant: str, text: str, fill: Callable[[str], None]) -> None:
    """Fill the file with what was granted; where that fails, have it revoked again."""
    try:
        fill(text)
    except OSError as error:
        body = RevokeCredentials(id=tenant, public_key=creds_files.public_key_of(text))
        await mesh.call("revoke_credentials", body, TenantAnswer)
        raise SetupError(
            f"the credentials of {tenant} can't be written: {error.strerror}; they are revoked",
            hint=f"`tenantry tenants credentials issue {tenant}` issues others",
        ) from None


def _make(path: Path, text: str) -> None:
    """Make the file with this text, and with the room that the credentials will take."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise SetupError(
            f"{path} exists already", hint="move it away, or name another with --creds-file"
        ) from None
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        _overwrite(path, text.encode().ljust(_ROOM, b"\n"))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _not_written(path, error) from None


def _begun(path: Path) -> KeyPair | None:
    """The key of a file that was reserved and never filled; None for any other."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    seed = _SEED.search(text)
    key = KeyPair.from_seed(seed[0]) if seed is not None else None
    if key is not None and text.rstrip("\n") == creds_files.render("", key).rstrip("\n"):
        return key
    return None


def _overwrite(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _not_written(path: Path, error: OSError) -> SetupError:
    return SetupError(
        f"{path} can't be written: {error.strerror}", hint="name another with --creds-file"
    )
