"""A new credentials file: reserved before anything is asked for, written when it is granted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tenantry.errors import SetupError


@contextmanager
def reserve(path: Path) -> Iterator[Callable[[str], None]]:
    """Make the file, empty and for its owner alone; yields what writes it.

    It goes again if it is not written, so nothing is asked of the control plane that could not
    be kept. Raises :class:`SetupError` where the file exists or can't be made.
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

    def write(text: str) -> None:
        path.write_text(text, encoding="utf-8")

    try:
        yield write
    finally:
        if path.stat().st_size == 0:
            path.unlink()
