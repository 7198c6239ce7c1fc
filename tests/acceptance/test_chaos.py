"""`make chaos` in short: the mesh under random faults has no findings, a plain worker has some."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.slow
def test_a_mesh_under_random_faults_keeps_its_promises() -> None:
    code, report, told = chaos("--seconds", "45", "--tenants", "12", "--rate", "40")
    assert code == 0, told
    assert report["findings"] == []
    assert report["figures"]["acknowledged"] > 0
    assert report["faults"]


@pytest.mark.slow
def test_a_rolling_deploy_fails_no_publish() -> None:
    code, report, told = chaos("--faults", "roll", "--seconds", "20", "--tenants", "8")
    assert code == 0, told
    assert report["failures"] == {}
    assert report["faults"]["roll"] > 2


@pytest.mark.slow
def test_the_same_oracle_finds_faults_in_a_plain_worker() -> None:
    code, report, told = chaos("--plain", "--seconds", "12", "--tenants", "8")
    assert code == 0, told
    assert report["findings"]


def test_faults_that_do_not_exist_are_refused() -> None:
    code, _, told = chaos("--faults", "earthquake")
    assert code == 2
    assert "earthquake" in told
