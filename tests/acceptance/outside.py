"""Commands that know nothing of the checkout and the environment that the tests run in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_LONGEST = 400.0


def run(*command: str | Path, cwd: Path) -> str:
    """What a command that must succeed prints."""
    env = {
        key: value
        for key, value in os.environ.items()
        if "TENANTRY" not in key and key not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout
