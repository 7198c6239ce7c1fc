"""The cases against the tests of this folder, and the documentation against both."""

from __future__ import annotations

import pytest

from tests.isolation.cases import CASES
from tests.isolation.table import DOCUMENT, attempts, written


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_tried(case: int) -> None:
    assert any(not each.succeeds for _, each in attempts()[case]), CASES[case]


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_its_counterpart(case: int) -> None:
    assert any(each.succeeds for _, each in attempts()[case]), CASES[case]


@pytest.mark.parametrize("case", CASES)
def test_where_two_layers_stop_it_one_is_switched_off(case: int) -> None:
    tried = [each for _, each in attempts()[case] if not each.succeeds]
    if len({layer for each in tried for layer in each.layers}) > 1:
        assert any(each.without for each in tried), CASES[case]


def test_the_documentation_has_the_table() -> None:
    text = DOCUMENT.read_text()
    assert text == written(text), "run `python -m tests.isolation.table --write`"
