"""The command line as its users run it: a process in a folder of its own."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import structlog

from tenantry.bus import Bus
from tenantry.cli import main
from tenantry.operator import OperatorHome
from tests.mesh import root_creds

PATIENCE = 180.0
SHOP = ("examples.shop.orders:service", "examples.shop.ledger:service")


class Done:
    """How a command ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an expected failure."""
        assert "Traceback" not in self.err, self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("tenantry: "), self.err
        return self.err.removeprefix("tenantry: ").rstrip("\n")


class Cli:
    """Runs `tenantry` in `folder`, with no settings from outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {key: value for key, value in os.environ.items() if "TENANTRY" not in key}

    @property
    def state(self) -> Path:
        return self.folder / ".tenantry"

    def __call__(
        self, *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None
    ) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "tenantry", *arguments],
            cwd=self.folder,
            env=self.env | (env or {}),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Done(done)

    def ok(self, *arguments: str, stdin: str | None = None) -> Done:
        """Run a command that must succeed."""
        done = self(*arguments, stdin=stdin)
        assert done.code == 0, f"tenantry {' '.join(arguments)}: {done.err}{done.out}"
        return done

    def fails(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """Run a command that must fail as expected; its error line."""
        done = self(*arguments, env=env)
        assert (done.code, done.out) == (1, ""), f"{done.code}: {done.out}{done.err}"
        return done.error

    def misused(self, *arguments: str) -> str:
        """Run a command that is called wrongly; its error line."""
        done = self(*arguments)
        assert (done.code, done.out) == (2, ""), f"{done.code}: {done.out}{done.err}"
        return done.error

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def running(self) -> dict[str, Any]:
        """What the supervisor says of itself and its children."""
        return json.loads((self.state / "pids" / "up.json").read_text())

    def child(self, name: str) -> dict[str, Any]:
        return next(each for each in self.running()["children"] if each["name"] == name)

    def pids(self) -> list[int]:
        return [each["pid"] for each in self.running()["children"]]

    @contextmanager
    def up(self, *arguments: str) -> Iterator[str]:
        """A mesh in the background; the line that says where it is."""
        try:
            yield self.ok("up", "-d", "--port", "0", *arguments).out
        finally:
            if self.folder.exists():
                self.ok("down")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command as a process, to be killed while it works."""
        return subprocess.Popen(
            [sys.executable, "-m", "tenantry", *arguments],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def control(self) -> Bus:
        """A connection to the mesh that may do everything but read the edge."""
        home = OperatorHome.load(self.state / "operator")
        return await Bus.connect(self.running()["url"], creds=root_creds(home, home.path))

    @contextmanager
    def foreground(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A process that runs until it is told to stop."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tenantry", *arguments],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # In the background a shell has us ignore Ctrl-C, and children inherit that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)


class Inside(Cli):
    """The same in this process: an interpreter for each fact would take minutes."""

    def __call__(
        self, *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None
    ) -> Done:
        assert stdin is None, "stdin is for real processes"
        out = io.TextIOWrapper(io.BytesIO(), write_through=True)
        err = io.StringIO()
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.env | (env or {}), clear=True),
            mock.patch.object(sys, "stdin", io.StringIO()),
            self._imports(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(arguments)
        out.seek(0)
        return Done(subprocess.CompletedProcess(arguments, code, out.read(), err.getvalue()))

    @contextmanager
    def _imports(self) -> Iterator[None]:
        """Forget afterwards what was imported from the folder, and how logs were set up."""
        path, settings = list(sys.path), structlog.get_config()
        try:
            yield
        finally:
            sys.path[:] = path
            structlog.configure(**settings)
            importlib.invalidate_caches()
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", None)).startswith(str(self.folder)):
                    del sys.modules[name]


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def soon(holds: Callable[[], bool], patience: float = 20.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
