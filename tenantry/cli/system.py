"""Errors of the operating system, as one line that says where and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tenantry.errors import TenantryError

_HINTS = {
    errno.ENOSPC: "free some space, then run it again",
    errno.EDQUOT: "free some space, then run it again",
    errno.EROFS: "name a place that can be written",
    errno.EACCES: "run it as the owner, or correct the permissions",
    errno.EPERM: "run it as the owner, or correct the permissions",
    errno.EMFILE: "raise the limit of open files, see `ulimit -n`",
    errno.ENFILE: "end some programs, then run it again",
    errno.EIO: "check the disk",
}


class SystemFailure(TenantryError):
    """The operating system refused something that a command needs."""

    code = "system"


def explain(error: OSError) -> SystemFailure:
    """What was refused, where, and what to do."""
    reason = error.strerror or str(error) or type(error).__name__
    hint = _HINTS.get(error.errno or 0, "")
    if error.filename is None and not _has_folder():
        return SystemFailure(
            "the working directory is not there any more", hint="cd to a directory that exists"
        )
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return SystemFailure(f"{where}{reason}", hint=hint)


def _has_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True
