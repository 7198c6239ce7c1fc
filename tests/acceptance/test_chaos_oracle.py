"""The oracle that judges the mesh has something to say of a plain worker."""

from __future__ import annotations

import pytest

from tests.acceptance.chaotic import chaos


@pytest.mark.slow
def test_the_same_oracle_finds_faults_in_a_plain_worker() -> None:
    code, report, told = chaos("--plain", "--seconds", "12", "--tenants", "8")
    assert code == 0, told
    assert report["findings"]
