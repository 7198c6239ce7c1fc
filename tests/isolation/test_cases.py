"""The table of cases against the tests of this folder."""

from __future__ import annotations

import importlib
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from tests.isolation.cases import CASES, MARK, Attempt


@cache
def attempts() -> dict[int, list[Attempt]]:
    """All that the tests of this folder say of themselves, by case."""
    found: dict[int, list[Attempt]] = defaultdict(list)
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.isolation.{file.stem}")
        for name, test in vars(module).items():
            if name.startswith("test_"):
                for attempt in getattr(test, MARK, ()):
                    found[attempt.case].append(attempt)
    return found


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_tried(case: int) -> None:
    assert any(not each.succeeds for each in attempts()[case]), CASES[case]


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_its_counterpart(case: int) -> None:
    assert any(each.succeeds for each in attempts()[case]), CASES[case]


@pytest.mark.parametrize("case", CASES)
def test_where_two_layers_stop_it_one_is_switched_off(case: int) -> None:
    tried = [each for each in attempts()[case] if not each.succeeds]
    if len({layer for each in tried for layer in each.layers}) > 1:
        assert any(each.without for each in tried), CASES[case]
