"""Starting ourselves in the background, and hearing whether it went well."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tenantry.cli import output
from tenantry.errors import TenantryError
from tenantry.local import notify
from tenantry.local.mesh import OURSELVES

_TELL_EVERY = 10.0
"""Seconds between two words that it is not ready yet."""


class StartFailed(TenantryError):
    """The process in the background has said why it does not start."""

    def __init__(self, line: str) -> None:
        code, colon, message = line.partition(": ")
        super().__init__(message if colon else line)
        if colon:
            self.code = code  # type: ignore[misc]


def start(arguments: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> str:
    """Run `tenantry ARGUMENTS` in a session of its own; returns what it says when it is ready.

    Its output goes to `log`; `env` is for what no command line may show. Raises
    :class:`StartFailed` with its own line when it fails.
    """
    reading, writing = os.pipe()
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*OURSELVES, *arguments],
            env={**os.environ, **(env or {}), notify.VARIABLE: str(writing)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            pass_fds=(writing,),
        )
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            while not select.select([pipe], (), (), _TELL_EVERY)[0]:
                output.note(f"tenantry: not ready yet; {log} says how far it is")
            line = pipe.readline()
    except KeyboardInterrupt:  # who does not wait for it does not want it
        process.terminate()
        process.wait()
        raise
    if not line:
        code = process.wait()
        last = log.read_text(errors="replace").rstrip().rpartition("\n")[2]
        raise StartFailed(f"setup: the supervisor ended with exit code {code}: {last}")
    good, text = notify.read(line)
    if not good:
        process.wait()
        raise StartFailed(text)
    process.returncode = 0  # it lives on without us: no warning about that
    return text
