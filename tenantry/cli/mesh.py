"""`tenantry up`, `down` and `status`: a whole mesh on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from tenantry import logs
from tenantry.cli import background, loop, options, output
from tenantry.cli.usage import UsageError
from tenantry.errors import SetupError
from tenantry.local import mesh, notify, processes, state, storage, valkey
from tenantry.local.state import StateFolder
from tenantry.local.supervisor import Echo, Supervisor

_DOWN_PATIENCE = 60.0

Count = Annotated[int, Parameter(validator=Number(gte=1, lte=64))]
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))]


def up(
    *target: Annotated[str, Parameter(help="services to run, as MODULE:ATTR")],
    detach: Annotated[
        bool, Parameter(alias="-d", negative="", help="return when it is ready, keep it running")
    ] = False,
    routers: Annotated[Count, Parameter(help="router processes")] = 1,
    replicas: Annotated[Count, Parameter(help="processes for each service")] = 1,
    port: Annotated[Port, Parameter(help="where NATS listens; 0 takes a free port")] = 4222,
    redis: options.Redis = None,
    no_redis: Annotated[
        bool, Parameter(negative="", help="start no Valkey: each router counts alone")
    ] = False,
    quiet: Annotated[
        bool, Parameter(negative="", help="do not show what the processes log")
    ] = False,
    state: options.State = state.DEFAULT,
) -> None:
    """Run a mesh on this machine: NATS, Valkey, control plane, routers, services.

    The routers share what they count in the Valkey it starts, or in the Redis
    or Valkey of --redis. Where there is none to start, it says so, and each
    router keeps to its part.

    Prints `ready nats://…` when everything answers, restarts what ends, and
    stops all in order at Ctrl-C. What it keeps is in the state folder; the
    next `up` goes on with it.
    """
    for each in target:
        if not mesh.is_target(each):
            raise UsageError(f"{each!r} is not MODULE:ATTR", hint="as in shop.orders:service")
    redis = _checked(redis, no_redis)
    folder = StateFolder.open(state)
    program = None if redis or no_redis else _valkey()
    if detach:
        line = _arguments(target, routers=routers, replicas=replicas, port=port, state=state)
        if not redis and program is None:
            line.insert(1, "--no-redis")
        env = {mesh.REDIS: redis or ""}
        output.line(f"ready {background.start(line, folder.logs / 'up.log', env=env)}")
        return
    wanted = mesh.MeshOptions(
        port=port,
        routers=routers,
        replicas=replicas,
        services=target,
        redis=redis,
        valkey=program,
        text_logs=sys.stderr.isatty(),
    )
    with folder.locked():
        loop.run(_supervise(folder, wanted, echo=None if quiet else _echo()))
    output.note("tenantry: stopped")


def _checked(redis: str | None, no_redis: bool) -> str | None:
    """What --redis and --no-redis come to. Raises :class:`UsageError`."""
    if no_redis:
        return None
    if redis and not valkey.is_url(redis):
        raise UsageError("--redis is no URL of a Redis", hint="as in rediss://user:password@host")
    return redis or None


def _valkey() -> Path | None:
    """The valkey-server to start; where there is none, say so."""
    program, why = valkey.choose()
    if program is None:
        output.note(f"tenantry: without Valkey, each router counts alone: {why}")
    return program


def _arguments(target: tuple[str, ...], **options: object) -> list[str]:
    """The command line of the supervisor that runs in the background."""
    pairs = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    return ["up", "--quiet", *pairs, *target]


async def _supervise(folder: StateFolder, wanted: mesh.MeshOptions, echo: Echo | None) -> None:
    stop = asyncio.Event()
    url, stages = mesh.prepare(folder, wanted)

    def note(text: str) -> None:
        output.note(f"tenantry: {text}")

    supervisor = Supervisor(
        folder,
        url,
        stages,
        redis=valkey.shown(wanted.redis or valkey.url_of(folder.path) or ""),
        say=note,
        echo=echo,
        care=lambda server: storage.keep_storing(
            server, url, folder.operator / "creds" / "control.creds", folder.path, note
        ),
    )

    def told() -> None:
        if stop.is_set():
            supervisor.kill()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told)

    def ready() -> None:
        output.announce(f"ready {url}")
        notify.ready(url)

    await supervisor.run(stop, ready=ready)


def _echo() -> Echo:
    """Children's lines on stderr, behind their names; each name in a colour on a terminal."""
    colours: dict[str, int] = {}

    def echo(name: str, line: str) -> None:
        head = f"{name:<12}"
        if logs.coloured():
            head = f"\x1b[{31 + colours.setdefault(name, len(colours) + 1) % 6}m{head}\x1b[0m"
        output.note(f"{head} | {line}")

    return echo


def down(*, state: options.State = state.DEFAULT) -> None:
    """Stop the mesh of a state folder, and return when it has stopped."""
    folder = StateFolder(state)
    if not folder.in_use():
        if folder.exists and mesh.clear_orphans(folder):
            output.line("stopped what a killed supervisor had left")
        else:
            output.line(f"nothing runs in {folder.path}")
        return
    running = folder.running()
    if running is None or processes.birth(running.supervisor) != running.birth:
        raise SetupError(
            f"{folder.path} is in use, but by whom is not written there",
            hint="try again in a moment",
        )
    try:
        os.kill(running.supervisor, signal.SIGTERM)
    except PermissionError:
        raise SetupError(
            f"the supervisor (process {running.supervisor}) belongs to somebody else",
            hint="run `tenantry down` as the user who started it",
        ) from None
    except ProcessLookupError:
        pass  # it is just ending by itself
    deadline = time.monotonic() + _DOWN_PATIENCE
    while folder.in_use():
        if time.monotonic() > deadline:
            raise SetupError(
                f"the supervisor (process {running.supervisor}) does not stop",
                hint=f"kill -9 {running.supervisor}",
            )
        time.sleep(0.05)
    output.line(f"stopped {running.url}")
