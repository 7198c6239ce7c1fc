"""nats-server as a child process: where it is, which ports are free, start, stop, kill."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from tenantry.errors import SetupError
from tenantry.local import processes
from tenantry.local.programs import Program

MINIMUM = (2, 14, 3)
"""Before this, several advisories of 2026 break permission lists."""
_LOG_LINES = 20
_POLL = 0.02


def _beside_python() -> list[Path]:
    folders = Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))
    return [folder / "nats-server" for folder in folders]


_PROGRAM = Program(
    names=("nats-server",),
    variable="TENANTRY_NATS_SERVER",
    option="-v",
    version=re.compile(r"v(\d+)\.(\d+)\.(\d+)"),
    minimum=MINIMUM,
    kind="not nats-server",
    reason=" for its permission checks",
)


def find_nats_server() -> Path:
    """The nats-server to run: `$TENANTRY_NATS_SERVER`, beside this Python, or on the PATH.

    Raises SetupError if there is none.
    """
    return _PROGRAM.find(_beside_python())


def check_version(program: Path) -> str:
    """The version of a nats-server, such as `2.15.1`. Raises SetupError if it is too old."""
    return _PROGRAM.check(program)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        # As servers do it: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


class NatsProcess:
    """One nats-server run from a configuration file.

    `port` is where clients connect; given here, it goes before the file's. `arguments` are further
    command-line options, `cwd` is what relative paths in the file refer to, `log` collects all
    that the server says. One that is `bound` dies with this process, however that ends (Linux).
    """

    def __init__(
        self,
        config: Path,
        *,
        port: int,
        cwd: Path | None = None,
        log: Path | None = None,
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        bound: bool = False,
    ) -> None:
        self.bound = bound
        self.config = config
        self.port = port
        self.cwd = cwd or config.parent
        self.log = log or self.cwd / "nats-server.log"
        self.arguments = arguments
        self.env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Its process id, once it was started."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout: float = 10.0) -> NatsProcess:
        """Start and wait until clients are answered, at most `timeout` seconds.

        Raises SetupError: with the server's last words, or at once if the port is taken.
        """
        if self.running:
            return self
        program = find_nats_server()
        if not port_is_free(self.port):
            # Else whoever has it would be taken for ours.
            raise SetupError(f"port {self.port} is taken", hint="end what listens there")
        command = [str(program), "-c", str(self.config), "-p", str(self.port), *self.arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.cwd,
                env=os.environ | self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=(  # noqa: PLW1509  (it makes two system calls, and is off by default)
                    processes.die_with_parent(signal.SIGKILL) if self.bound else None
                ),
            )
        try:
            self._await_ready(time.monotonic() + timeout)
        except SetupError:
            self.kill()
            raise
        return self

    def stop(self, *, timeout: float = 10.0) -> None:
        """Stop in good order; kill after `timeout` seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Kill at once (SIGKILL), as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self, *, timeout: float = 10.0) -> NatsProcess:
        """Stop, if it runs, and start on the same port."""
        self.stop()
        return self.start(timeout=timeout)

    def last_words(self, lines: int = _LOG_LINES) -> str:
        """The end of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> NatsProcess:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _await_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if not self.running:
                raise self._failed("nats-server stopped at once")
            if read_info(self.port) is not None:
                return
            time.sleep(_POLL)
        raise self._failed("nats-server is not ready in time")

    def _failed(self, what: str) -> SetupError:
        return SetupError(f"{what}; its log ends with:\n{self.last_words()}", hint=str(self.log))


def read_info(port: int, host: str = "127.0.0.1", timeout: float = 1.0) -> dict[str, Any] | None:
    """What a NATS server says first (its INFO line); None if no such server answers."""
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as connection,
            connection.makefile("rb") as lines,
        ):
            line = lines.readline(1 << 20)
        word, _, body = line.partition(b" ")
        return msgspec.json.decode(body, type=dict[str, Any]) if word == b"INFO" else None
    except (OSError, msgspec.MsgspecError):
        return None
