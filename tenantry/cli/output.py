"""What the commands print: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import datetime as dt
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Literal

from tenantry import logs
from tenantry.errors import BadMessage, Rejection, TenantryError

_TRACE = "urn:trace:"

_FRAME = 3
"""Characters that a drawn table adds to each column."""

_FOLDED = 24
"""The least width of a column that is folded, characters."""

Format = Literal["table", "json"]


def line(text: str) -> None:
    """One line of the result, on stdout."""
    print(text, flush=True)


def announce(text: str) -> None:
    """One line on stdout, from what goes on working where nobody reads it."""
    logs.Lossy(sys.stdout).write(f"{text}\n")


def note(text: str) -> None:
    """Something a person may want to know, on stderr; dropped where that can't be written."""
    logs.stderr().write(f"{text}\n")


def json(value: Any) -> None:
    """A value as JSON: indented on a terminal, compact in a pipe."""
    import msgspec

    raw(msgspec.json.encode(value))


def raw(body: bytes) -> None:
    """A JSON text as it came; indented on a terminal."""
    if sys.stdout.isatty():
        import msgspec

        body = msgspec.json.format(body, indent=2)
    sys.stdout.buffer.write(body + b"\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows under their columns, of which nothing is ever cut; in a pipe one row a line.

    A table that is wider than the terminal has its last column, which holds texts, folded; where
    the others alone are too wide, it is plain lines, which the terminal wraps.
    """
    texts = [[text(cell) for cell in row] for row in rows]
    lines = [[column.upper() for column in columns], *texts]
    widths = [max(len(row[index]) for row in lines) for index in range(len(columns))]
    room = shutil.get_terminal_size().columns - _FRAME * len(columns)
    if sys.stdout.isatty() and sum(widths[:-1]) + min(widths[-1], _FOLDED) <= room:
        _rich_table(columns, texts)
        return
    for row in lines:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        line("  ".join(cells).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns[:-1]:
        drawn.add_column(column, no_wrap=True)
    drawn.add_column(columns[-1], overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def text(cell: Any) -> str:
    """A cell: nothing for None, yes and no, one line."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return " ".join(str(cell).split())


def moment(seconds: float | None) -> str:
    """A time as ISO 8601 in UTC, to the second."""
    if seconds is None:
        return ""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).isoformat().replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """A duration in its two largest units: `3d 4h`, `12s`."""
    rest = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def error_line(error: TenantryError) -> str:
    """`<code>: <message> (<hint>) [trace <id>]`, in one line; with the place in the body."""
    where = f" at {error.path}" if isinstance(error, BadMessage) and error.path != "$" else ""
    hint = f" ({error.hint})" if error.hint else ""
    instance = str(error.extensions.get("instance", "")) if isinstance(error, Rejection) else ""
    trace = f" [trace {instance.removeprefix(_TRACE)}]" if instance.startswith(_TRACE) else ""
    return " ".join(f"{error.code}: {error.message}{where}{hint}{trace}".split())
