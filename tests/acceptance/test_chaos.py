"""The mesh under random faults has no findings."""

from __future__ import annotations

import pytest

from tests.acceptance.chaotic import chaos


@pytest.mark.slow
def test_a_mesh_under_random_faults_keeps_its_promises() -> None:
    code, report, told = chaos("--seconds", "30", "--tenants", "12", "--rate", "40")
    assert code == 0, told
    assert report["findings"] == []
    assert report["figures"]["acknowledged"] > 0
    assert report["faults"]


def test_faults_that_do_not_exist_are_refused() -> None:
    code, _, told = chaos("--faults", "earthquake")
    assert code == 2
    assert "earthquake" in told
