"""`tenantry run`: one worker in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter

from tenantry import logs, telemetry
from tenantry.cli import connection, loop, output, targets
from tenantry.cli.connection import Connection
from tenantry.cli.usage import UsageError
from tenantry.local import notify
from tenantry.runtime import Runnable, Worker, WorkerOptions
from tenantry.runtime.worker import DRAIN


def run(
    *target: str,
    drain: Annotated[float, Parameter(help="seconds to finish what has begun")] = DRAIN,
    at: Connection = connection.DEFAULT,
) -> None:
    """Run a worker in this process until SIGTERM or Ctrl-C; a second one ends it at once.

    A TARGET is the name of a worker that ships (router, tenants), or one or more services as
    MODULE:ATTR, looked for in the current folder too.
    """
    if not target:
        raise UsageError("nothing to run", hint="name a worker or services, see --help")
    names = [targets.check(each) for each in target]
    worker = _worker(names, drain, at)
    logs.configure()
    flush = telemetry.configure(names[0])
    try:
        loop.run(_serve(worker, " ".join(names)))
    finally:
        flush()


def _worker(names: list[str], drain: float, at: Connection) -> Runnable | Worker:
    entry = targets.shipped(names[0])
    if entry is None:
        if mixed := [name for name in names if targets.shipped(name)]:
            raise UsageError(f"{mixed[0]} runs in a process of its own", hint="start it apart")
        services = [targets.service(name) for name in names]
        return Worker(services, servers=at.server(), creds=at.role_creds("service"), drain=drain)
    if len(names) > 1:
        raise UsageError(f"{names[0]} runs in a process of its own", hint="start the others apart")
    options = WorkerOptions(
        servers=(at.server(),), creds=at.creds, home=at.operator_home(), drain=drain
    )
    kind: Callable[[WorkerOptions], Runnable] = targets.worker_class(entry)
    return kind(options)


async def _serve(worker: Runnable | Worker, name: str) -> None:
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
        output.line(f"ready {name}")
        notify.ready(name)

    working = asyncio.create_task(worker.run(stop, ready=ready))
    with contextlib.suppress(asyncio.CancelledError):
        await working
