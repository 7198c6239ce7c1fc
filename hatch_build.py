"""The compiled wheel: with TENANTRY_COMPILED=1 the hot paths are translated to C by mypyc.

Without the variable nothing is compiled, and the wheel is one for all platforms. Which modules are
compiled stands in pyproject.toml; why, in docs/decisions/0027-compiled-hot-paths.md.
"""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledHook(BuildHookInterface[Any]):
    """Adds compiled modules to the wheel, beside their sources, which tracebacks show."""

    def _wanted(self) -> bool:
        return os.environ.get("TENANTRY_COMPILED", "0") not in ("", "0")

    def dependencies(self) -> list[str]:
        """The compiler, and the packages whose types it has to know."""
        if not self._wanted():
            return []
        core = self.metadata.core
        named = [*core.dependencies, *core.optional_dependencies["redis"]]
        return ["mypy[mypyc]>=1.18", "setuptools>=77", *named]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; but not for an editable installation, whose sources are to be edited."""
        if not self._wanted() or version == "editable":
            return
        self._folder = TemporaryDirectory(prefix="tenantry-compiled-")  # until `finalize`
        with chdir(self.root):
            library = compile_modules(self.config["compiled"], Path(self._folder.name))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {
            str(path): str(path.relative_to(library)) for path in library.rglob("*.*")
        }

    def finalize(self, *_: Any) -> None:
        """The wheel is written."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def compile_modules(sources: list[str], folder: Path) -> Path:
    """Translate `sources`, paths from the current directory; returns where the extensions are.

    They share one library, so that they call each other directly. Raises :class:`SystemExit` with
    what to do where there is no C compiler.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext
    from setuptools.errors import CompileError

    extensions = mypycify(
        ["--cache-dir", os.devnull, *sources],
        group_name="tenantry",
        target_dir=str(folder / "c"),
    )
    command = build_ext(Distribution({"name": "tenantry", "ext_modules": extensions}))
    command.build_lib = str(folder / "lib")
    command.build_temp = str(folder / "o")
    command.ensure_finalized()
    try:
        command.run()
    except CompileError as error:
        raise SystemExit(
            f"the hot paths can't be compiled: {error}\n"
            "A compiled wheel needs a C compiler and Python's headers (on Debian: gcc python3-dev);"
            " without TENANTRY_COMPILED=1 the wheel is pure and needs neither."
        ) from None
    return folder / "lib"
