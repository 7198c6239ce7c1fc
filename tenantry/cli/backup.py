"""`tenantry backup` and `tenantry restore`: all that JetStream holds for the mesh, in a folder."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from tenantry import __version__
from tenantry.bus import Bus
from tenantry.cli import connection, loop, output
from tenantry.cli.connection import Connection
from tenantry.cli.options import Output
from tenantry.cli.progress import progress
from tenantry.errors import SetupError, TenantryError
from tenantry.journal import backup as backups
from tenantry.journal import restore as restoring
from tenantry.journal.backup import Manifest
from tenantry.journal.restore import Restored
from tenantry.local.alone import alone
from tenantry.local.server import NatsProcess, free_port

_NOT_IN_IT = (
    "Not in it: the operator's directory (keys, credentials, mesh.toml) and databases of services."
)
_TEMPORARY = """\
host: 127.0.0.1
jetstream: {{ store_dir: "{folder}/data", limits: {{ default_max_consumers: -1 }} }}
"""
_ANYWHERE = {"num_replicas": 1, "max_bytes": -1, "placement": None}
"""What a stream's configuration needs to fit a single small server."""


def backup(
    folder: Annotated[Path, Parameter(help="a new folder")],
    /,
    *,
    verify: Annotated[
        bool, Parameter(negative="", help="restore it into an empty server, and compare")
    ] = False,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Copy the journal, dead letters, schedules and buckets, with their consumers.

    The mesh goes on meanwhile. The folder is there when it is whole; an
    interrupted backup is begun anew. It holds what all tenants sent, in
    clear. Not in it: the operator's directory, with all keys, and what
    services keep in databases of their own.
    """

    async def run() -> Manifest:
        async with await at.connect("control") as bus:
            with progress("backing up", unit="bytes") as tell:
                return await backups.take(bus, folder, version=__version__, tell=tell)

    manifest = loop.run(run())
    if verify:
        _try(folder, manifest)
    if form == "json":
        output.json({"folder": str(folder), "verified": verify, **_about(manifest)})
        return
    rows = [
        (each.name, each.messages, len(each.consumers), each.bytes) for each in manifest.streams
    ]
    output.table(("stream", "messages", "consumers", "bytes"), rows)
    output.line(f"backed up to {folder}{', and restored it for a trial' if verify else ''}")
    output.line(_NOT_IN_IT)


def restore(
    folder: Annotated[Path, Parameter(help="a folder that `tenantry backup` has made")],
    /,
    *,
    check: Annotated[
        bool, Parameter(negative="", help="only restore it into an empty server of its own")
    ] = False,
    replace: Annotated[
        bool, Parameter(negative="", help="delete the streams that are there, and all they hold")
    ] = False,
    replicas: Annotated[
        int | None,
        Parameter(validator=Number(gte=1), help="copies in a cluster; by default as they were"),
    ] = None,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Bring a backup into a server on which no worker runs.

    Everything is checked before anything is changed. Where the mesh of the
    state folder is stopped, its nats-server runs for as long as this takes.
    Consumers go on where they stood.
    """
    with progress(f"checking {folder.name}", unit="bytes") as tell:
        manifest = backups.check(folder, tell=tell)
    if check:
        done = _try(folder, manifest)
    else:
        overrides = {} if replicas is None else {"num_replicas": replicas}
        with _server(at) as url:
            done = loop.run(_restore(at, url, folder, manifest, replace, overrides))
    if form == "json":
        output.json({"folder": str(folder), "checked_only": check, "streams": done})
        return
    rows = [(each.name, each.messages, each.last_seq, each.consumers) for each in done]
    output.table(("stream", "messages", "last", "consumers"), rows)
    if expired := sum(each.expired for each in done):
        output.line(f"{expired} messages were over their retention, and are gone")
    output.line(f"{folder} is whole" if check else f"restored {folder}")


def _about(manifest: Manifest) -> dict[str, Any]:
    return {
        "time": manifest.time,
        "server": manifest.server,
        "streams": [
            {"name": each.name, "messages": each.messages, "bytes": each.bytes}
            for each in manifest.streams
        ],
    }


async def _restore(
    at: Connection,
    url: str | None,
    folder: Path,
    manifest: Manifest,
    replace: bool,
    overrides: dict[str, Any],
) -> list[Restored]:
    async with _connected(at, url) as bus:
        await restoring.check_quiet(bus)
        if replace:
            for each in await restoring.existing(bus, manifest):
                output.note(f"deleting {each.name}: {each.messages} messages")
        total = sum(each.bytes for each in manifest.streams)
        with progress("restoring", total, unit="bytes") as tell:
            return await restoring.restore(
                bus, folder, manifest, replace=replace, overrides=overrides, tell=tell
            )


@asynccontextmanager
async def _connected(at: Connection, url: str | None) -> AsyncIterator[Bus]:
    if url is None:
        async with await at.connect("control") as bus:
            yield bus
    else:
        async with await Bus.connect(url, creds=at.role_creds("control"), patience=5.0) as bus:
            yield bus


@contextmanager
def _server(at: Connection) -> Iterator[str | None]:
    """Where the server is, if it is not where `at` says: that of a mesh here that is stopped."""
    home = at.folder.operator / "server.conf"
    if at.url or at.folder.in_use() or not home.exists():
        yield None
        return
    with alone(at.folder) as url:
        yield url


def _try(folder: Path, manifest: Manifest) -> list[Restored]:
    """Restore into an empty server that goes again. Raises where something does not come back."""

    async def run(url: str) -> list[Restored]:
        async with await Bus.connect(url, patience=5.0) as bus:
            with progress("trying it", total, unit="bytes") as tell:
                return await restoring.restore(
                    bus, folder, manifest, overrides=_ANYWHERE, tell=tell
                )

    total = sum(each.bytes for each in manifest.streams)
    with tempfile.TemporaryDirectory(prefix="tenantry-restore-") as place:
        config = Path(place) / "server.conf"
        config.write_text(_TEMPORARY.format(folder=place), encoding="utf-8")
        server = NatsProcess(config, port=free_port(), bound=True)
        try:
            server.start()
        except SetupError as error:
            raise SetupError(f"no server to try the backup on: {error.message}") from None
        try:
            return loop.run(run(server.url))
        except TenantryError as error:
            error.hint = "this backup is no good: take another"
            raise
        finally:
            server.stop()
