"""`tenantry subjects` and `tenantry schemas`: the contracts, generated from the code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from tenantry import contracts
from tenantry.cli import output
from tenantry.errors import NotFound, SetupError

Write = Annotated[bool, Parameter(negative="", help="write the files instead of printing")]
Folder = Annotated[Path, Parameter(name="--dir", help="the project's folder")]


def subjects(*, write: Write = False, folder: Folder = Path()) -> None:
    """Every subject of the mesh: who publishes and who consumes what, in which stream."""
    if not write:
        output.line(contracts.subjects_page().rstrip("\n"))
        return
    _tell(contracts.write_subjects, folder)


def schemas(name: str | None = None, *, write: Write = False, folder: Folder = Path()) -> None:
    """The JSON Schemas of the messages that Tenantry defines; of one, with NAME."""
    if write:
        _tell(contracts.write_schemas, folder)
        return
    files = contracts.schemas()
    if name is None:
        output.json(
            {file.removesuffix(".json"): msgspec.Raw(files[file].encode()) for file in files}
        )
        return
    if f"{name}.json" not in files:
        known = ", ".join(file.removesuffix(".json") for file in files)
        raise NotFound(f"no message {name!r}", hint=f"there are {known}")
    output.raw(files[f"{name}.json"].strip().encode())


def _tell(write: contracts.Writer, folder: Path) -> None:
    if not folder.is_dir():
        raise SetupError(f"{folder} is not a folder", hint="give the project's with --dir")
    try:
        changed = write(folder)
    except OSError as error:
        raise SetupError(f"can't write {error.filename}: {error.strerror}") from None
    for path in changed:
        output.line(str(path))
    if not changed:
        output.note("nothing has changed")
