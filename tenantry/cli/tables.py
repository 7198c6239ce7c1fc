"""Prints tables whose cells are never cut, however narrow the terminal is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

from tenantry.cli import output

_FRAME = 3
"""What a table on a terminal adds to each column, in characters."""


def whole(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; one that is wider than the terminal as plain lines, which wrap there."""
    texts = [[output.text(cell) for cell in row] for row in rows]
    lines = [[column.upper() for column in columns], *texts]
    widths = [max(len(row[index]) for row in lines) for index in range(len(columns))]
    room = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or sum(widths) + _FRAME * len(columns) <= room:
        output.table(columns, rows)
        return
    for row in lines:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        output.line("  ".join(cells).rstrip())
