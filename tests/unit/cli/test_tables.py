"""Tables of which nothing is cut."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable

import pytest

from tenantry.cli import output

COLUMNS = ("name", "text")
ROW = ("a" * 40, "b" * 60)


class Terminal(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Prints a table on a terminal and returns what is there."""
    monkeypatch.setenv("COLUMNS", "80")

    def show(*rows: tuple[str, str]) -> str:
        terminal = Terminal()
        with contextlib.redirect_stdout(terminal):
            output.table(COLUMNS, rows)
        return terminal.getvalue()

    return show


def test_a_table_that_is_too_wide_for_the_terminal_is_not_cut(shown: Callable[..., str]) -> None:
    row = ("a" * 60, "b" * 60)
    assert "  ".join(row) in shown(row)


def test_the_texts_of_the_last_column_are_folded(shown: Callable[..., str]) -> None:
    out = re.sub(r"\x1b\[[0-9;]*m", "", shown(ROW))
    assert ROW[0] in out
    assert out.count("b") == len(ROW[1])
    assert max(map(len, out.splitlines())) <= 80


def test_a_time_in_the_last_column_is_whole(shown: Callable[..., str]) -> None:
    assert "2026-11-21T08:00:00Z" in shown(("a" * 54, "2026-11-21T08:00:00Z"))


def test_a_table_that_fits_is_drawn(shown: Callable[..., str]) -> None:
    assert "──" in shown(("a", "b"))
