"""`tenantry nats …`: what NATS servers and workers in production are set up with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from tenantry.cli import output
from tenantry.cli.options import CONNECTION
from tenantry.cli.usage import UsageError, examples
from tenantry.errors import SetupError
from tenantry.local import mesh
from tenantry.local.state import DEFAULT
from tenantry.operator import OperatorHome, ServerOptions, files

app = App(
    name="nats",
    help="Make the operator's directory, server configuration and credentials.",
    help_epilogue=examples(
        "tenantry nats init /etc/tenantry --name production --replicas 3",
        "tenantry nats creds service --service orders --out orders.creds",
    ),
)

_MADE = (
    ("server.conf", "for nats-server, with operator.conf"),
    ("mesh.toml", "what the tenants worker sets up in JetStream"),
    ("keys/", "seeds; operator.nk, sys.nk, edge.nk and mesh.nk belong offline"),
    ("context/", "the key that signs tenant contexts"),
    ("creds/", "credentials of the roles router, control, sys; of services as they are run"),
)


@app.command(
    help_epilogue=examples("tenantry nats init /etc/tenantry --name production --replicas 3")
)
def init(
    directory: Annotated[Path, Parameter(help="a new or empty directory")],
    /,
    *,
    name: Annotated[str, Parameter(help="of the operator, for people")] = "tenantry",
    port: Annotated[int, Parameter(help="where nats-server listens")] = 4222,
    replicas: Annotated[
        Literal[1, 3, 5], Parameter(help="copies of all streams, in a cluster")
    ] = 1,
    durable: Annotated[
        bool, Parameter(negative="", help="write through to the disk before each acknowledgement")
    ] = False,
) -> None:
    """Make an operator's directory: trust, server configuration, credentials.

    Signed documents and configuration are public; keep keys/, context/ and
    creds/ as secrets.
    """
    path = directory.absolute()
    server = ServerOptions(
        port=port,
        store_dir=str(path / "data" / "jetstream"),
        resolver_dir=str(path / "data" / "accounts"),
        sync_interval="always" if durable else "",
    )
    home = mesh.plant(path, name=name, server_options=server, replicas=replicas)
    output.line(f"made {home.path}")
    for part, what in _MADE:
        output.line(f"  {part:<12} {what}")
    output.line("next:")
    output.line(f"  nats-server -c {home.path / 'server.conf'}")
    output.line(f"  tenantry run tenants --home {home.path} --url nats://127.0.0.1:{port}")
    output.line(f"  tenantry run router --home {home.path} --url nats://127.0.0.1:{port}")


@app.command(
    help_epilogue=examples(
        "tenantry nats creds service --service orders --out orders.creds",
        "tenantry nats creds service --service orders --service ledger --out shop.creds",
        "tenantry nats creds control | ssh ops 'umask 77; cat > control.creds'",
    )
)
def creds(
    role: Annotated[str, Parameter(help="router, service, control or sys")],
    /,
    *,
    home: Annotated[
        Path,
        Parameter(env_var="TENANTRY_HOME", group=CONNECTION, help="the operator's directory"),
    ] = DEFAULT / "operator",
    service: Annotated[
        tuple[str, ...],
        Parameter(
            negative="", help="of the role service: one that the holder may run; may be repeated"
        ),
    ] = (),
    name: Annotated[str, Parameter(help="for people: who uses them")] = "",
    out: Annotated[Path | None, Parameter(help="write them there, not to stdout")] = None,
) -> None:
    """Issue credentials of a role of the mesh, with a new key pair.

    Those of the role service open what belongs to the services that are
    named: their requests, state, dead letters and consumers, no others'.
    """
    label = name or "+".join(service) or role
    text = OperatorHome.load(home).issue_role(role, label, services=service)
    if out is None:
        if sys.stdout.isatty():
            raise UsageError("credentials are secret", hint="give --out FILE, or use a pipe")
        sys.stdout.write(text)
        return
    if out.exists():
        raise SetupError(f"{out} exists already", hint="name another file")
    files.write(out, text, secret=True)
    output.line(f"made {out}")
