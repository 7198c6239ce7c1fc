"""The command tree. Commands are imported when they are used, so that each starts fast."""

from __future__ import annotations

from cyclopts import App, Group

from tenantry.cli.usage import examples

app = App(
    name="tenantry",
    help="A multi-tenant, event-driven mesh of Python workers on NATS.",
    version=lambda: _version(),
    help_format="plaintext",
    help_epilogue=examples(
        "tenantry up -d examples.shop.orders:service   # a mesh with one service",
        "tenantry tenants create acme                  # writes ./acme.creds",
        """tenantry request acme orders.place '{"sku": "A-1"}'""",
        "tenantry services                             # what runs",
        "tenantry down                                 # stops it; what it holds stays",
    ),
)


def _version() -> str:
    from tenantry import __version__

    return __version__


def _command(where: str, group: Group, summary: str, *lines: str) -> None:
    """Register `module:attribute` of this package, with examples for its help text."""
    more = {"help_epilogue": examples(*lines)} if lines else {}
    name = where.partition(":")[2]
    app.command(f"tenantry.cli.{where}", name=name, group=group, help=summary, **more)


_MESH = Group("A mesh on this machine", sort_key=1)
_TENANTS = Group("Tenants and their messages", sort_key=2)
_RUN = Group("Production and development", sort_key=3)

_command(
    "mesh:up",
    _MESH,
    "Run a whole mesh on this machine.",
    "tenantry up                              # without services",
    "tenantry up shop.orders:service          # with one; Ctrl-C stops all",
    "tenantry up -d --replicas 2 shop.orders:service shop.ledger:service",
    "tenantry up -d --port 0 --state /tmp/a   # a second mesh beside the first",
)
_command("mesh:down", _MESH, "Stop it.", "tenantry down", "tenantry down --state /tmp/a")
_command(
    "run:run",
    _RUN,
    "Run one worker in this process.",
    "tenantry run shop.orders:service shop.ledger:service",
    "tenantry run router --url nats://nats-1:4222,nats://nats-2:4222 --home /etc/tenantry",
    "tenantry run tenants --home /etc/tenantry",
)
