"""A rolling deploy under load fails nothing."""

from __future__ import annotations

import pytest

from tests.acceptance.chaotic import chaos


@pytest.mark.slow
def test_a_rolling_deploy_fails_no_publish() -> None:
    code, report, told = chaos("--faults", "roll", "--seconds", "20", "--tenants", "8")
    assert code == 0, told
    assert report["failures"] == {}
    assert report["faults"]["roll"]
