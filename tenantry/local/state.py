"""The state folder of a mesh on this machine (`.tenantry/`): what is where, and who uses it.

state.json     the format of this folder
lock           held (flock) by the supervisor as long as it lives
operator/      keys, credentials, server.conf, mesh.toml (see `tenantry.operator`)
jetstream/     what nats-server keeps
valkey/        what valkey-server keeps, its configuration, its URL with the password
accounts/      account documents that were pushed to nats-server
logs/          one file per process
pids/up.json   what runs now, written by the supervisor
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from tenantry.errors import SetupError
from tenantry.operator import files

FORMAT = 1
DEFAULT = Path(".tenantry")
_LOCK_PATIENCE = 0.5

ChildState = Literal["waiting", "starting", "ready", "backoff", "stopping", "stopped"]


class ChildStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process as the supervisor sees it; times are seconds since the epoch."""

    name: str
    state: ChildState = "waiting"
    pid: int | None = None
    birth: str = ""
    started: float | None = None
    restarts: int = 0
    why: str = ""
    """How it ended last, if it did."""
    log: str = ""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """`up.json`: a supervisor and its children."""

    format: int = FORMAT
    supervisor: int
    birth: str
    url: str
    redis: str = ""
    """Where the routers share what they count, without its password; empty for nowhere."""
    state: Literal["starting", "ready", "stopping"] = "starting"
    started: float
    children: tuple[ChildStatus, ...] = ()

    def processes(self) -> list[tuple[int, str]]:
        """Process id and birth of every child that has one."""
        return [(child.pid, child.birth) for child in self.children if child.pid is not None]


class _Format(msgspec.Struct, frozen=True):
    format: int


class StateFolder:
    """A state folder; made by :meth:`open`, or only looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.operator = self.path / "operator"
        self.logs = self.path / "logs"
        self._up = self.path / "pids" / "up.json"
        self._lock = self.path / "lock"

    @classmethod
    def open(cls, path: Path) -> StateFolder:
        """Open a folder, or make a new one, for its owner alone. Raises :class:`SetupError`."""
        state = cls(path)
        try:
            state._refuse_foreign()
            state.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not state._format_file.exists():
                text = msgspec.json.encode(_Format(FORMAT)).decode()
                files.write(state._format_file, text + "\n", secret=False)
                files.write(state.path / ".gitignore", "*\n", secret=False)
            state.check_format()
            for folder in (state.logs, state._up.parent):
                folder.mkdir(mode=0o700, exist_ok=True)
            state._lock.touch(mode=0o600)
        except OSError as error:
            raise SetupError(
                f"the state folder {state.path} can't be used: {error.strerror or error}",
                hint="choose another with --state DIR",
            ) from None
        return state

    @property
    def exists(self) -> bool:
        """Whether there is a state folder here."""
        try:
            return self._format_file.exists()
        except OSError:
            return False

    @property
    def _format_file(self) -> Path:
        return self.path / "state.json"

    def _refuse_foreign(self) -> None:
        if not self.path.exists() or self._format_file.exists():
            return
        if not self.path.is_dir():
            raise SetupError(f"{self.path} is not a folder", hint="choose another with --state DIR")
        if any(self.path.iterdir()):
            raise SetupError(
                f"{self.path} is not empty and no state folder of Tenantry",
                hint="choose another with --state DIR",
            )

    def check_format(self) -> None:
        """Raise :class:`SetupError` where this version can't read the folder."""
        text = files.read(self._format_file)
        try:
            found = msgspec.json.decode(text, type=_Format).format
        except msgspec.MsgspecError:
            raise SetupError(
                f"{self._format_file} is corrupt", hint=f'it should hold {{"format":{FORMAT}}}'
            ) from None
        if found > FORMAT:
            raise SetupError(
                f"the state folder {self.path} has format {found}, this version knows {FORMAT}",
                hint="a newer Tenantry made it: upgrade this one, or use another --state DIR",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone. Raises :class:`SetupError` if it is in use."""
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + _LOCK_PATIENCE
            while not _try_lock(handle, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise self._in_use()
                time.sleep(0.05)
            yield
        finally:
            os.close(handle)

    def in_use(self) -> bool:
        """Whether a supervisor holds the folder now."""
        try:
            handle = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _try_lock(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)

    def _in_use(self) -> SetupError:
        running = self.running()
        where = f" by the mesh at {running.url}" if running else ""
        option = "" if self.path == DEFAULT.absolute() else f" --state {self.path}"
        return SetupError(
            f"the state folder {self.path} is in use{where}",
            hint=f"stop it with `tenantry down{option}`, or use another --state DIR",
        )

    def running(self) -> Running | None:
        """What the supervisor last wrote; stale where :meth:`in_use` says no."""
        try:
            return msgspec.json.decode(self._up.read_bytes(), type=Running)
        except (OSError, msgspec.MsgspecError):
            return None

    def write_running(self, running: Running) -> None:
        """Say what runs; the file is whole at any time."""
        neighbour = self._up.with_suffix(".new")
        neighbour.write_bytes(msgspec.json.encode(running))
        neighbour.replace(self._up)

    def clear_running(self) -> None:
        """Nothing runs any more."""
        with contextlib.suppress(OSError):
            self._up.unlink()


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
