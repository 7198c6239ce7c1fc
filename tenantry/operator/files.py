"""Files that are whole or not there, and errors that say what to do."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from tenantry.errors import SetupError

_SECRET, _PUBLIC = 0o600, 0o644


def write(path: Path, text: str, *, secret: bool, keep: bool = False) -> None:
    """Write a file by way of a neighbour and a rename. Raises SetupError.

    A secret is readable by its owner only, whatever the umask, from its first byte on. With `keep`
    a file that is there, perhaps since just now, stays as it is.
    """
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        neighbour = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(file.fileno(), _SECRET if secret else _PUBLIC)
                file.flush()
                os.fsync(file.fileno())
            if keep:
                with contextlib.suppress(FileExistsError):
                    path.hardlink_to(neighbour)
            else:
                neighbour.replace(path)
        finally:
            neighbour.unlink(missing_ok=True)
    except OSError as error:
        raise SetupError(
            f"cannot write {path}: {error.strerror or error}", hint="check the directory's owner"
        ) from error


def read(path: Path) -> str:
    """The text of a file. Raises SetupError if it is missing, not readable or not text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SetupError(
            f"{path} is missing", hint="restore it from a backup, or make a new home elsewhere"
        ) from error
    except UnicodeDecodeError as error:
        raise SetupError(f"{path} is corrupt", hint="restore it from a backup") from error
    except OSError as error:
        raise SetupError(
            f"cannot read {path}: {error.strerror or error}",
            hint="run as the user who owns it, or fix its permissions",
        ) from error
