"""A new credentials file: made before anything is asked for, filled when it is granted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tenantry.control import Control
from tenantry.errors import SetupError
from tenantry.messages import RevokeCredentials, TenantAnswer
from tenantry.operator import creds as creds_files

_ROOM = 8192
"""More than any credentials file takes, bytes."""


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

    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise SetupError(
            f"{path} exists already", hint="move it away, or name another with --creds-file"
        ) from None
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        try:
            _overwrite(path, b"\n" * _ROOM)
        except OSError as error:
            raise _not_written(path, error) from None
        yield fill
    finally:
        if not filled:
            path.unlink(missing_ok=True)


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
