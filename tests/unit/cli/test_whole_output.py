"""What a command prints arrives whole, however slowly it is read."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios
import time
from typing import IO

import pytest

SIZE = 200_000
PROGRAM = f"""
import asyncio
from tenantry.cli import loop, output, streams
streams.prepare()
loop.run(asyncio.sleep(0))
output.line("x" * {SIZE})
"""


PIPE = 65_536
"""What a pipe holds: its writer has to wait then."""


def held(pipe: IO[bytes]) -> int:
    """How many bytes wait in a pipe."""
    (count,) = struct.unpack("i", fcntl.ioctl(pipe.fileno(), termios.FIONREAD, b"\0" * 4))
    return int(count)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_more_than_a_pipe_holds_arrives(unbuffered: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        while process.poll() is None and held(process.stdout) < PIPE:
            time.sleep(0.01)
        time.sleep(0.5)  # the kernel takes down the loop's ring meanwhile, and interrupts the write
        assert len(process.stdout.read()) == SIZE + 1
    assert process.returncode == 0
