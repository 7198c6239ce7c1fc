"""`tenantry keys …` as the tests of keys run it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tests.mesh import Mesh, Program

ROLES = ("router", "service", "control", "sys")


class Keys:
    """`tenantry keys …` for one mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def __call__(self, *arguments: str) -> str:
        """Run a command that must succeed; what it prints."""
        done = await self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def fails(self, *arguments: str) -> str:
        """Run a command that must fail with one line; that line."""
        done = await self.run(*arguments)
        assert done.returncode != 0
        assert done.stderr.strip().count("\n") == 0, done.stderr
        return done.stderr.strip()

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        at = ("--url", self._mesh.url, "--home", str(self._mesh.home.path))
        command = [sys.executable, "-m", "tenantry", "keys", *arguments, *at]
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False, timeout=120
        )

    async def list(self) -> list[dict[str, Any]]:
        return list(msgspec.json.decode(await self("list", "-o", "json")))

    async def id(self, kind: str, state: str = "current") -> str:
        """The newest key of a kind in this state."""
        rows = [r for r in await self.list() if r["kind"] == kind and r["state"] == state]
        return str(rows[-1]["id"])


@contextlib.contextmanager
def copied(mesh: Mesh, role: str) -> Iterator[Path]:
    """Credentials of a role that nobody gives new ones: a thief's."""
    path = mesh.folder / f"stolen-{role}.creds"
    own = mesh.home.service_creds(["notes"]) if role == "service" else mesh.home.creds_path(role)
    shutil.copy(own, path)
    yield path


async def asked(program: Program) -> str:
    return (await program.ask("notes.echo", {"text": "x"})).code
