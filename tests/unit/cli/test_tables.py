"""Tables of which nothing is cut."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import pytest

from tenantry.cli import tables

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
            tables.whole(COLUMNS, rows)
        return terminal.getvalue()

    return show


def test_a_table_that_is_too_wide_for_the_terminal_is_not_cut(shown: Callable[..., str]) -> None:
    assert "  ".join(ROW) in shown(ROW)


def test_a_table_that_fits_is_drawn(shown: Callable[..., str]) -> None:
    assert "──" in shown(("a", "b"))


def test_in_a_pipe_it_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    tables.whole(COLUMNS, [("a", "b")])
    assert capsys.readouterr().out == "NAME  TEXT\na     b\n"
