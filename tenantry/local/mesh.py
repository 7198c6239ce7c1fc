"""A whole mesh on this machine: what `tenantry up` prepares and which processes it runs."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tenantry.errors import SetupError
from tenantry.local import processes, server, valkey
from tenantry.local.child import Spec
from tenantry.local.state import StateFolder
from tenantry.operator import OperatorHome, ServerOptions, files
from tenantry.operator.generations import require_current
from tenantry.runtime import config

HOST = "127.0.0.1"
OURSELVES = (sys.executable, "-P", "-m", "tenantry")
"""How a child is started: with the path that the command `tenantry` itself has."""

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", re.ASCII)
REDIS = "TENANTRY_REDIS"
"""How routers hear where Redis is: an environment is its owner's alone, a command line is not."""

_OURS = ("TENANTRY_URL", "TENANTRY_CREDS", "TENANTRY_STATE", "TENANTRY_HOME", REDIS)
_MARGIN = 4.0
_POLL = 0.02
_NATS_DRAIN = 10.0
_MIB = 1024**2
_LEAST = 256 * _MIB
"""Bytes that have to be free on the disk for a new mesh."""
_SIZE = re.compile(r"(?m)^(max_bytes = )(\d+)( *)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshOptions:
    """How much of a mesh to run. `services` are `MODULE:ATTR`; `drain` is in seconds."""

    port: int = 4222
    """0 takes any free one."""
    routers: int = 1
    replicas: int = 1
    services: tuple[str, ...] = ()
    redis: str | None = None
    """Where the routers share what they count: the URL of a Redis or Valkey that runs already."""
    valkey: Path | None = None
    """The valkey-server to start, where `redis` names none; without both, each counts alone."""
    drain: float = 8.0
    text_logs: bool = False


def is_target(text: str) -> bool:
    """Whether `text` has the form `MODULE:ATTR`."""
    return _TARGET.fullmatch(text) is not None


def clear_orphans(state: StateFolder) -> int:
    """End what a supervisor that was killed has left; the caller holds the folder's lock."""
    running = state.running()
    if running is None:
        return 0
    count = processes.end(running.processes())
    state.clear_running()
    return count


def choose_port(port: int) -> int:
    """The port to use. Raises :class:`SetupError` where it is taken."""
    if port == 0:
        return server.free_port(HOST)
    if not server.port_is_free(port, HOST):
        raise SetupError(
            f"port {port} is taken", hint="choose another with --port N, or any with --port 0"
        )
    return port


def plant(
    home: Path,
    *,
    name: str = "tenantry",
    server_options: ServerOptions | None = None,
    replicas: int = 1,
    disk: int | None = None,
) -> OperatorHome:
    """Make an operator's home with its `mesh.toml`. Raises :class:`SetupError`.

    JetStream reserves what streams may hold: with `disk`, in bytes, all of them together are made
    to fit into it, each less by the same share.
    """
    made = OperatorHome.create(home, name=name, server=server_options)
    text = re.sub(r"(?m)^replicas = 1\b", f"replicas = {replicas}", config.TEMPLATE)
    if disk is not None:
        text = _fitted(text, disk)
    files.write(made.path / config.FILE, text, secret=False)
    return made


def prepare(state: StateFolder, options: MeshOptions) -> tuple[str, list[list[Spec]]]:
    """Make all files, choose the port: the URL, and the processes stage by stage.

    The caller holds the folder's lock. Raises :class:`SetupError`.
    """
    clear_orphans(state)
    program = server.find_nats_server()
    server.check_version(program)
    port = choose_port(options.port)
    if not (state.operator / "home.json").exists():
        plant(
            state.operator,
            # Relative to the state folder, where nats-server is started: it may be moved.
            server_options=ServerOptions(
                port=port, store_dir="./data", resolver_dir="./data/accounts"
            ),
            disk=_disk(state.path),
        )
    require_current(OperatorHome.load(state.operator))
    url = f"nats://{HOST}:{port}"
    redis, valkeys = _redis(state, options, besides=port)
    return url, [
        [_nats(state, program, port), *valkeys],
        [_worker(state, url, options, "tenants", ("tenants",))],
        [
            *_replicas(state, url, options, "router", ("router",), options.routers, redis=redis),
            *(
                spec
                for name, target in _named(options.services)
                for spec in _replicas(state, url, options, name, (target,), options.replicas)
            ),
        ],
    ]


def _redis(state: StateFolder, options: MeshOptions, *, besides: int) -> tuple[str, list[Spec]]:
    """Where the routers find Redis, if anywhere, and what is to be started for it."""
    if options.redis or options.valkey is None:
        valkey.forget(state.path)
        return options.redis or "", []
    port = besides
    while port == besides:  # nobody listens on that one yet
        port = server.free_port(HOST)
    url, spec = valkey.spec(state.path, options.valkey, host=HOST, port=port)
    return url, [spec]


def _disk(folder: Path) -> int:
    """Return the bytes that streams may reserve here: half of the free ones.

    Raises :class:`SetupError` where there is too little.
    """
    free = shutil.disk_usage(folder).free
    if free < _LEAST:
        raise SetupError(
            f"{folder} has {free // _MIB} MiB left, a mesh needs {_LEAST // _MIB} MiB",
            hint="free some space, or take another place with --state DIR",
        )
    return free // 2


def _fitted(text: str, disk: int) -> str:
    """A `mesh.toml` whose streams fit into so many bytes together, in whole MiB."""
    share = min(1.0, disk / sum(int(match[2]) for match in _SIZE.finditer(text)))
    return _SIZE.sub(
        lambda match: f"{match[1]}{int(int(match[2]) * share) // _MIB * _MIB}{match[3]}", text
    )


def _nats(state: StateFolder, program: Path, port: int) -> Spec:
    config_file = state.operator / "server.conf"
    return Spec(
        name="nats-server",
        command=(str(program), "-c", str(config_file), "-a", HOST, "-p", str(port)),
        cwd=state.path,
        env=dict(os.environ),
        probe=_greeted(port),
        drain=_NATS_DRAIN,
        orphan_signal=signal.SIGTERM,
    )


def _greeted(port: int) -> Callable[[], Awaitable[None]]:
    """Waits until a NATS server says hello on this port."""

    async def wait() -> None:
        while not await _greets(port):  # noqa: ASYNC110  (it is another process)
            await asyncio.sleep(_POLL)

    return wait


async def _greets(port: int) -> bool:
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 20)
            try:
                return (await reader.readline()).startswith(b"INFO ")
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False


def _replicas(
    state: StateFolder,
    url: str,
    options: MeshOptions,
    name: str,
    targets: tuple[str, ...],
    count: int,
    *,
    redis: str = "",
) -> list[Spec]:
    names = [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
    return [_worker(state, url, options, each, targets, redis=redis) for each in names]


def _worker(
    state: StateFolder,
    url: str,
    options: MeshOptions,
    name: str,
    targets: tuple[str, ...],
    *,
    redis: str = "",
) -> Spec:
    env = {key: value for key, value in os.environ.items() if key not in _OURS}
    if redis:
        env[REDIS] = redis
    env["PYTHONUNBUFFERED"] = "1"
    if options.text_logs:
        env.setdefault("TENANTRY_LOG_FORMAT", "text")
    command = (*OURSELVES, "run", *targets, "--url", url)
    if name == "tenants":
        command = (*command, "--server-log", str(state.logs / "nats-server.log"))
    return Spec(
        name=name,
        command=(*command, "--state", str(state.path), "--drain", f"{options.drain:g}"),
        cwd=Path.cwd(),
        env=env,
        drain=options.drain + _MARGIN,
    )


def _named(targets: tuple[str, ...]) -> list[tuple[str, str]]:
    """A short name for each target: the module's last part where that is enough."""
    short = [target.partition(":")[0].rpartition(".")[2] for target in targets]
    taken = Counter([*short, "nats-server", valkey.NAME, "tenants", "router"])
    return [
        (name if taken[name] == 1 else target.replace(":", "."), target)
        for name, target in zip(short, targets, strict=True)
    ]
