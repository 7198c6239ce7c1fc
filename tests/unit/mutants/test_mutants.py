"""The mutants fit the code as it is, and their runner tells what is noticed from what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutants.mutant import Mutant, Stale, load
from mutants.trial import ROOT, Copy, Verdict

MUTANTS = load()


def name_of(mutant: Mutant) -> str:
    return mutant.name


def test_there_are_a_hundred_at_least() -> None:
    assert len({each.name for each in MUTANTS}) == len(MUTANTS) >= 100


@pytest.mark.parametrize("mutant", MUTANTS, ids=name_of)
def test_what_a_mutant_changes_is_there_once(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1


@pytest.mark.parametrize("mutant", MUTANTS, ids=name_of)
def test_a_mutant_is_still_a_program(mutant: Mutant) -> None:
    changed = (ROOT / mutant.file).read_text().replace(mutant.old, mutant.new)
    compile(changed, mutant.file, "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=name_of)
def test_the_tests_of_a_mutant_are_there(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / file).read_text()


def test_a_change_of_what_is_not_there_is_stale(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(Stale, match="holds its `old` 0 times"):
        Mutant("m", "", "a.py", "y = 1", "y = 2", ("tests",)).apply(tmp_path)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


def change(old: str, new: str) -> Mutant:
    tests = ("tests/unit/core/test_subjects.py",)
    return Mutant("m", "", "tenantry/subjects.py", old, new, tests)


FIRST = '"""'
"""Stands at the beginning of the file; what comes before it is run."""


@pytest.mark.slow
def test_a_change_that_a_test_notices_is_killed(copy: Copy) -> None:
    mutant = next(each for each in MUTANTS if each.file == "tenantry/subjects.py")
    assert copy.try_out(mutant).verdict is Verdict.KILLED


@pytest.mark.slow
def test_a_change_that_no_test_notices_survives(copy: Copy) -> None:
    mutant = change(
        "from __future__ import annotations\n", "from __future__ import annotations\n\n"
    )
    assert copy.try_out(mutant).verdict is Verdict.SURVIVED


@pytest.mark.slow
def test_a_change_that_breaks_the_set_up_proves_nothing(copy: Copy) -> None:
    mutant = change("from __future__ import annotations\n", "import nothing_of_this_name\n")
    assert copy.try_out(mutant).verdict is Verdict.BROKEN
