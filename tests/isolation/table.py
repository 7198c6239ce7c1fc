"""What the tests say of the cases, and the table of it in docs/isolation.md.

python -m tests.isolation.table --write
"""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

from tests.isolation.cases import CASES, MARK, Attempt

HERE = Path(__file__).parent
DOCUMENT = HERE.parent.parent / "docs" / "isolation.md"
_BEGIN = "<!-- cases: written by `python -m tests.isolation.table --write` -->\n"
_END = "<!-- end of cases -->\n"


@cache
def attempts() -> dict[int, list[tuple[str, Attempt]]]:
    """What the tests of this folder say of themselves, by case, each with its file."""
    found: dict[int, list[tuple[str, Attempt]]] = defaultdict(list)
    for file in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"tests.isolation.{file.stem}")
        for name, test in vars(module).items():
            if name.startswith("test_"):
                for attempt in getattr(test, MARK, ()):
                    found[attempt.case].append((file.name, attempt))
    return found


def render() -> str:
    """The table: each case, what stops it, what was switched off to see that, and where."""
    lines = ["| | tried | stopped by | also without | in |", "|---:|---|---|---|---|"]
    for case, what in CASES.items():
        tried = [each for each in attempts()[case] if not each[1].succeeds]
        layers = dict.fromkeys(str(layer) for _, each in tried for layer in each.layers)
        without = dict.fromkeys(str(each.without) for _, each in tried if each.without)
        files = dict.fromkeys(f"`{file}`" for file, _ in attempts()[case])
        cells = (str(case), what, "; ".join(layers), "; ".join(without), ", ".join(files))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The document with the table as it has to be."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin
    assert end
    return before + begin + render() + end + after


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
