"""One more worker of the world, in a process of its own, to be killed: python -m … URL CREDS."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from tenantry import Worker
from tests.isolation.world.vault import ledger, vault


def start(url: str, creds: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start it; returns when it serves. What it says goes to `log`, one JSON object a line."""
    command = (sys.executable, "-m", __name__, url, str(creds))
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


async def _serve(url: str, creds: str) -> None:
    worker = Worker((vault, ledger), servers=url, creds=creds)
    await worker.run(asyncio.Event(), ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    from tests.isolation.world.recorded import log_to

    log_to(sys.stderr)
    asyncio.run(_serve(*sys.argv[1:]))
