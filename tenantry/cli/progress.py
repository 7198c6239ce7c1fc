"""How far long work has come: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol


class Tell(Protocol):
    """Says how much is done, of how much, and what else is worth knowing."""

    def __call__(self, done: int, total: int | None = ..., note: str = ...) -> None:
        """Show it."""


@contextmanager
def progress(
    what: str, total: int | None = None, *, unit: Literal["messages", "bytes"] = "messages"
) -> Iterator[Tell]:
    """Show a bar on stderr while a block runs; yields what tells it how much is done."""
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count)
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(what, total=total)

        def tell(done: int, total: int | None = total, note: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{what} {note}".strip())

        yield tell


def _silent(done: int, total: int | None = None, note: str = "") -> None:
    del done, total, note
