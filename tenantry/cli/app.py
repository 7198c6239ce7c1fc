"""The command tree: which command is where, and the examples in its help text."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from cyclopts import App, Group, Parameter

from tenantry import __version__, compiled
from tenantry.cli import (
    audit,
    backup,
    contracts,
    dead,
    demo,
    erase,
    journal,
    keys,
    mesh,
    messages,
    nats,
    plans,
    process_logs,
    quota,
    recover,
    replay,
    run,
    schedules,
    services,
    status,
    tenants,
    top,
    transfer,
)
from tenantry.cli.usage import examples

_MESH = Group("A mesh on this machine", sort_key=1)
_TENANTS = Group("Tenants and their messages", sort_key=2)
_RUN = Group("Production and development", sort_key=3)
_order = itertools.count()


def _shown(default: Any) -> str | None:
    """A default in a help text, where it says something: not that a switch is off."""
    return None if default in (None, False, ()) else str(default)


app = App(
    name="tenantry",
    help="A multi-tenant, event-driven mesh of Python workers on NATS.",
    version=f"{__version__} (compiled)" if compiled else __version__,
    help_format="plaintext",
    default_parameter=Parameter(negative_iterable=(), show_default=_shown),
    help_epilogue=examples(
        "tenantry up -d examples.shop.orders:service   # a mesh with one service",
        "tenantry tenants create acme                  # writes ./acme.creds",
        """tenantry request acme orders.place '{"sku": "A-1"}'""",
        "tenantry services                             # what runs",
        "tenantry down                                 # stops it; what it holds stays",
    ),
)


def _command(group: Group, command: Callable[..., Any], *lines: str) -> None:
    """Register a command with examples for its help text."""
    app.command(command, group=group, help_epilogue=examples(*lines), sort_key=next(_order))


def _commands(group: Group, commands: App) -> None:
    """Register a noun with commands of its own."""
    commands.group, commands.sort_key = (group,), next(_order)
    app.command(commands)


_command(
    _MESH,
    mesh.up,
    "tenantry up                              # without services",
    "tenantry up shop.orders:service          # with one; Ctrl-C stops all",
    "tenantry up -d --replicas 2 shop.orders:service shop.ledger:service",
    "tenantry up -d --port 0 --state /tmp/a   # a second mesh beside the first",
    "TENANTRY_REDIS=rediss://user:password@host tenantry up",
)
_command(_MESH, mesh.down, "tenantry down", "tenantry down --state /tmp/a")
_command(_MESH, demo.demo, "tenantry demo", "tenantry demo --seconds 60")
_command(_MESH, status.status, "tenantry status", "tenantry status -o json")
_command(
    _MESH,
    process_logs.logs,
    "tenantry logs                            # of all processes",
    "tenantry logs orders -f                  # of one service, and what comes",
    "tenantry logs --trace 0af7651916cd43dd8448eb211c80319c",
    "tenantry logs --tenant acme --last 50",
)

_commands(_TENANTS, tenants.app)
_commands(_TENANTS, plans.app)
_command(_TENANTS, quota.quota, "tenantry quota acme", "tenantry quota acme -o json")
_command(
    _TENANTS,
    messages.request,
    """tenantry request acme orders.place '{"sku": "A-1", "quantity": 2}'""",
    "tenantry request acme ledger.total | jq .cents",
    "tenantry request acme orders.place @order.json --timeout 2",
)
_command(
    _TENANTS,
    messages.publish,
    "tenantry publish acme orders.import @orders.json",
    "generate | tenantry publish acme orders.import - --id batch-17",
)
_commands(_TENANTS, journal.app)
_commands(_TENANTS, replay.app)
_command(
    _TENANTS,
    recover.recover,
    "tenantry recover acme --until 2026-11-21T08:00:00Z",
    "tenantry recover acme --until 4711 --service ledger  # before message 4711",
    "tenantry recover acme --skip 4711 --yes              # all but that one",
    "tenantry recover acme --back",
)
_commands(_TENANTS, dead.app)
journal.app.command(
    transfer.export,
    help_epilogue=examples(
        "tenantry journal export acme acme.jsonl.gz",
        "tenantry journal export acme lately.jsonl --since 2026-11-01",
    ),
)
journal.app.command(
    transfer.import_,
    name="import",
    help_epilogue=examples(
        "tenantry journal import acme.jsonl.gz --dry-run",
        "tenantry journal import acme.jsonl.gz",
        "tenantry journal import acme.jsonl.gz --as acme-test --deliver",
    ),
)
journal.app.command(
    erase.erase,
    help_epilogue=examples(
        "tenantry tenants delete acme && tenantry journal erase acme",
        "tenantry journal erase acme --yes -o json",
    ),
)
_command(
    _TENANTS,
    services.services,
    "tenantry services",
    "tenantry services orders",
    "tenantry services --lag                       # who is behind, and how far",
    "tenantry services -o json",
)
_command(
    _TENANTS,
    top.top,
    "tenantry top                                  # the busiest, live; q ends it",
    "tenantry top --sort limited -n 5              # who is over a limit",
    "tenantry top --sort latency | head            # once, as a plain table",
    "tenantry top --tenant acme -o json | jq .tenants[0].p99_ms",
)
_commands(_TENANTS, schedules.app)
_command(
    _TENANTS,
    audit.audit,
    "tenantry audit                                # all of the last 90 days",
    "tenantry audit --tenant acme --since 2h       # by acme, or aimed at acme",
    "tenantry audit --kind forged_credentials -f   # those to come, too",
    "tenantry audit -o json | jq -s 'map(.count) | add'",
)

_command(
    _RUN,
    run.run,
    "tenantry run shop.orders:service shop.ledger:service",
    "tenantry run router --url nats://nats-1:4222,nats://nats-2:4222 --home DIR",
    "tenantry run tenants --home /etc/tenantry",
)
_commands(_RUN, nats.app)
_commands(_RUN, keys.app)
_command(
    _RUN,
    backup.backup,
    "tenantry backup /backup/2026-11-21 --verify",
    "tenantry backup /backup/nightly --url nats://nats-1:4222 --home /etc/tenantry",
)
_command(
    _RUN,
    backup.restore,
    "tenantry restore /backup/2026-11-21 --check   # only look whether it is whole",
    "tenantry restore /backup/2026-11-21 --url nats://new:4222 --home /etc/tenantry",
    "tenantry down && tenantry restore saved --replace && tenantry up -d",
)
_command(_RUN, contracts.subjects, "tenantry subjects", "tenantry subjects --write")
_command(
    _RUN, contracts.schemas, "tenantry schemas Plan", "tenantry schemas --write --dir ~/tenantry"
)
