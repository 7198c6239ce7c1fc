"""`Mutant`: one wrong change, as it stands in `mutants/changes/*.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

CHANGES = Path(__file__).parent / "changes"


class Stale(Exception):
    """The code has moved on: what a mutant changes is not there, or not only once."""


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`old` becomes `new` in `file`; one of `tests` has to fail: files, or `file::test`."""

    name: str
    why: str
    """What would be open."""
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> str:
        """Change the file below `root` and return what it was. Raises Stale."""
        path = root / self.file
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (found := before.count(self.old)) != 1:
            raise Stale(f"{self.name}: {self.file} holds its `old` {found} times, not once")
        path.write_text(before.replace(self.old, self.new), encoding="utf-8")
        return before


class _Changes(msgspec.Struct, forbid_unknown_fields=True):
    mutant: tuple[Mutant, ...]


def load() -> list[Mutant]:
    """All mutants, by file and in its order. Raises msgspec.ValidationError, tomllib's errors."""
    found: list[Mutant] = []
    for path in sorted(CHANGES.glob("*.toml")):
        changes = tomllib.loads(path.read_text(encoding="utf-8"))
        found.extend(msgspec.convert(changes, _Changes).mutant)
    return found
