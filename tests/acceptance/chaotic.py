"""`make chaos` in short, as the tests run it: each in a file of its own, so that they go side by
side.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SEED = "7"


def chaos(*arguments: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--seed", SEED, "-o", "json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400.0,
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stdout + done.stderr
