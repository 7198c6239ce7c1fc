"""Standard input, output and error: that there are three, and that any text can be printed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

STDOUT = "standard output"


def prepare() -> None:
    """Have descriptors 0 to 2 open, and print what an encoding lacks as an escape.

    Whoever started us may have closed one: the next file to be opened would take its place, and
    get what is printed. Call it before anything is opened.
    """
    _open_missing()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            nothing = os.open(os.devnull, os.O_RDWR)  # stays open: the stream is wrapped anew
            stream = os.fdopen(nothing, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _keep_whole()


def settle() -> None:
    """Write what is left, or drop it: Python would fail on it once more at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                stream.flush()


def _open_missing() -> None:
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)


class _Output(io.FileIO):
    """Standard output; its errors say that they are its own."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


def _keep_whole() -> None:
    """Have all that is printed arrive, also with PYTHONUNBUFFERED, or an error that names stdout.

    Unbuffered, stdout is a raw file, and Python drops what a short write leaves over. A write that
    waits for a full pipe is cut short where uvloop has closed its loop before: Linux takes down the
    loop's io_uring later, and interrupts (seen with uvloop 0.23).
    """
    if not isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase | io.BufferedWriter):
        return
    sys.stdout.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(sys.stdout.fileno(), "w", closefd=False)),
        encoding=sys.stdout.encoding,
        errors=sys.stdout.errors,
        line_buffering=True,
    )
