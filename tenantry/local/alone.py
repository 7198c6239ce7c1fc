"""The nats-server of a mesh that is stopped, without its workers, as long as something needs it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenantry.local import mesh, processes
from tenantry.local.server import NatsProcess, free_port
from tenantry.local.state import ChildStatus, Running, StateFolder


@contextmanager
def alone(state: StateFolder) -> Iterator[str]:
    """Run it on a free port, and hold the folder meanwhile; yields its URL.

    Two servers over the same files would ruin them: what a killed command has left is ended first.
    Raises :class:`SetupError` where the folder is in use.
    """
    with state.locked(), tempfile.TemporaryDirectory() as logs:
        mesh.clear_orphans(state)
        server = NatsProcess(
            state.operator / "server.conf",
            port=free_port(),
            cwd=state.path,
            log=Path(logs) / "nats-server.log",
            bound=True,
        )
        with server:
            state.write_running(_running(server))
            try:
                yield server.url
            finally:
                server.stop()
                state.clear_running()


def _running(server: NatsProcess) -> Running:
    child = ChildStatus(
        name="nats-server",
        state="ready",
        pid=server.pid,
        birth=processes.birth(server.pid or 0) or "",
    )
    return Running(
        supervisor=os.getpid(),
        birth=processes.birth(os.getpid()) or "",
        url=server.url,
        started=time.time(),
        children=(child,),
    )
