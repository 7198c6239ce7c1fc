"""`tenantry run`: one worker in this process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
from cyclopts import Parameter

from tenantry import __version__, logs, metrics, tasks, telemetry
from tenantry.cli import connection, loop, options, output, targets
from tenantry.cli.connection import Connection
from tenantry.cli.usage import UsageError
from tenantry.local import notify
from tenantry.runtime import Runnable, Worker, WorkerOptions
from tenantry.runtime.worker import DRAIN

_LEAVE = 2.0
"""What an end may take beyond its drain, seconds: to say good-bye takes NATS milliseconds."""

log = structlog.get_logger("tenantry.run")


def run(
    *target: str,
    drain: Annotated[float, Parameter(help="seconds to finish what has begun")] = DRAIN,
    redis: options.Redis = None,
    server_log: Annotated[
        Path | None,
        Parameter(
            name="--server-log",
            help="log of a nats-server on this machine: with it the tenants worker tells of "
            "permission violations, see `tenantry audit`",
        ),
    ] = None,
    at: Connection = connection.DEFAULT,
) -> None:
    """Run a worker in this process until SIGTERM or Ctrl-C; twice ends it at once.

    It ends two seconds after its drain at the latest, even where NATS does
    not answer.

    A TARGET is the name of a worker that ships (router, tenants), or one or
    more services as MODULE:ATTR, looked for in the current folder too.

    Routers share what they count where --redis says, by default where
    `tenantry up` of the state folder has started a Valkey; else each keeps to
    its part.
    """
    if not target:
        raise UsageError("nothing to run", hint="name a worker or services, see --help")
    names = [targets.check(each) for each in target]
    worker = _worker(names, drain, at, redis, server_log)
    logs.configure()
    flush = telemetry.configure(*_identity(names[0], worker))
    if metrics.enabled():
        metrics.observe(metrics.LOG_LOST, lambda: [(logs.Lossy.lost, {})])
    try:
        loop.run(_serve(worker, " ".join(names), drain))
    finally:
        flush()


def _worker(
    names: list[str], drain: float, at: Connection, redis: str | None, server_log: Path | None
) -> Runnable | Worker:
    entry = targets.shipped(names[0])
    if entry is None:
        if mixed := [name for name in names if targets.shipped(name)]:
            raise UsageError(f"{mixed[0]} runs in a process of its own", hint="start it apart")
        services = [targets.service(name) for name in names]
        creds = at.service_creds([service.name for service in services])
        return Worker(services, servers=at.server(), creds=creds, drain=drain)
    if len(names) > 1:
        raise UsageError(f"{names[0]} runs in a process of its own", hint="start the others apart")
    wanted = WorkerOptions(
        servers=(at.server(),),
        creds=at.creds,
        home=at.operator_home(),
        drain=drain,
        redis=redis or at.redis(),
        server_log=server_log,
    )
    kind: Callable[[WorkerOptions], Runnable] = targets.worker_class(entry)
    return kind(wanted)


def _identity(name: str, worker: Runnable | Worker) -> tuple[str, str]:
    """The name of this process in telemetry, and its version; empty where services have several."""
    if not isinstance(worker, Worker):
        return name, __version__
    versions = {service.version for service in worker.services}
    version = versions.pop() if len(versions) == 1 else ""
    return "+".join(service.name for service in worker.services), version


async def _serve(worker: Runnable | Worker, name: str, drain: float) -> None:
    stop, begun = asyncio.Event(), asyncio.Event()
    event_loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
        if not begun.is_set():
            working.cancel()  # it may wait for long, for NATS or for the control plane

    for number in (signal.SIGTERM, signal.SIGINT):
        event_loop.add_signal_handler(number, told, number)

    def ready() -> None:
        begun.set()
        gc.collect()
        gc.freeze()  # what is loaded now stays: no later collection has to look at it
        output.announce(f"ready {name}")
        notify.ready(name)

    working = asyncio.create_task(worker.run(stop, ready=ready))
    stopping = asyncio.create_task(_after(stop, drain + _LEAVE))
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        # A NATS that does not answer: each good-bye to it would wait for it anew.
        log.error("no orderly end in time: what was begun comes again", within=drain + _LEAVE)
        os._exit(1)
    await tasks.end(stopping)
    with contextlib.suppress(asyncio.CancelledError):
        await working


async def _after(event: asyncio.Event, seconds: float) -> None:
    await event.wait()
    await asyncio.sleep(seconds)
