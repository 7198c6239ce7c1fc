"""The hostile world in short: `make hostile` runs it longer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PLACES = {"JOURNAL", "DEAD", "SCHEDULES", "KV_state", "messages heard", "log lines", "spans"}


def world(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        (sys.executable, "-m", "tests.isolation.world", *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
def test_no_secret_is_found_outside_of_its_tenant(record_property: Any) -> None:
    code, report = world("--tenants", "100", "--seconds", "8")
    assert report["findings"] == []
    assert code == 0
    assert report["attempts in all"] > 1_000
    assert report["searched"].keys() >= PLACES
    record_property("attempts", report["attempts in all"])


@pytest.mark.slow
def test_a_secret_outside_of_its_tenant_is_found_wherever_it_lies() -> None:
    code, report = world("--tenants", "5", "--seconds", "2", "--leak")
    places = {finding.partition(":")[0] for finding in report["findings"]}
    assert places >= {"JOURNAL", "KV_state", "messages heard", "log lines", "spans"}
    assert code == 0
