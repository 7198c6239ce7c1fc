"""A new credentials file: reserved before anything is asked for, written when it is granted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenantry.errors import SetupError
from tenantry.operator import creds
from tenantry.operator.keys import KeyPair, Kind


class KeyFile:
    """A key pair made here, whose seed goes into the file and nowhere else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = KeyPair.generate(Kind.USER)
        self.written = False

    def write(self, jwt: str | None) -> None:
        """Write the credentials that were granted for this key."""
        if jwt is None:
            raise SetupError("the tenants worker has granted no credentials")
        self.path.write_text(creds.render(jwt, self.key))
        self.written = True


@contextmanager
def reserve(path: Path) -> Iterator[KeyFile]:
    """Make the file, empty and for its owner alone; it goes again if it is not written.

    So nothing is asked of the control plane that could not be kept. Raises :class:`SetupError`
    where the file exists or can't be made.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise SetupError(
            f"{path} exists already", hint="move it away, or name another with --creds-file"
        ) from None
    except OSError as error:
        raise SetupError(
            f"{path} can't be written: {error.strerror}", hint="name another with --creds-file"
        ) from None
    file = KeyFile(path)
    try:
        yield file
    finally:
        if not file.written:
            path.unlink(missing_ok=True)
