"""The command tree: which command is where, and the examples in its help text."""

from __future__ import annotations

from typing import Any, NamedTuple

from cyclopts import App, Group, Parameter

from tenantry.cli.usage import examples

_MESH = Group("A mesh on this machine", sort_key=1)
_TENANTS = Group("Tenants and their messages", sort_key=2)
_RUN = Group("Production and development", sort_key=3)


class Entry(NamedTuple):
    """One command, or a noun with commands of its own (`MODULE:app`)."""

    group: Group
    path: str
    """`MODULE:ATTR` below `tenantry.cli`: imported when the command is used."""
    summary: str
    """The first line of its help, for the list of all commands, which imports none of them."""
    examples: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called by."""
        module, _, attribute = self.path.partition(":")
        return module if attribute == "app" else attribute


ENTRIES: list[Entry] = []


def tree(*, summaries: bool = False) -> App:
    """The command tree. With `summaries` it is good for the list of all commands alone."""
    made = App(
        name="tenantry",
        help="A multi-tenant, event-driven mesh of Python workers on NATS.",
        version=_version,
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
    for number, entry in enumerate(ENTRIES):
        own = {"help_epilogue": examples(*entry.examples)} if entry.examples else {}
        made.command(
            f"tenantry.cli.{entry.path}",
            name=entry.name,
            group=entry.group,
            sort_key=number,
            help=entry.summary if summaries else None,
            **own,
        )
    return made


def _version() -> str:
    from tenantry import __version__, compiled

    return f"{__version__} (compiled)" if compiled else __version__


def _shown(default: Any) -> str | None:
    """A default in a help text, where it says something: not that a switch is off."""
    return None if default in (None, False, ()) else str(default)


def _command(group: Group, path: str, summary: str, *lines: str) -> None:
    ENTRIES.append(Entry(group, path, summary, lines))


_command(
    _MESH,
    "mesh:up",
    "Run a mesh on this machine: NATS, Valkey, control plane, routers, services.",
    "tenantry up                              # without services",
    "tenantry up shop.orders:service          # with one; Ctrl-C stops all",
    "tenantry up -d --replicas 2 shop.orders:service shop.ledger:service",
    "tenantry up -d --port 0 --state /tmp/a   # a second mesh beside the first",
    "TENANTRY_REDIS=rediss://user:password@host tenantry up",
)
_command(
    _MESH,
    "mesh:down",
    "Stop the mesh of a state folder, and return when it has stopped.",
    "tenantry down",
    "tenantry down --state /tmp/a",
)
_command(
    _MESH,
    "demo:demo",
    "See a real mesh at work: four tenants, two accidents, checks at the end.",
    "tenantry demo",
    "tenantry demo --seconds 60",
)
_command(
    _MESH,
    "status:status",
    "Show what runs here and whether it answers.",
    "tenantry status",
    "tenantry status -o json",
)
_command(
    _MESH,
    "process_logs:logs",
    "Show what the processes of `tenantry up` have logged, in order of time.",
    "tenantry logs                            # of all processes",
    "tenantry logs orders -f                  # of one service, and what comes",
    "tenantry logs --trace 0af7651916cd43dd8448eb211c80319c",
    "tenantry logs --tenant acme --last 50",
)

_command(
    _TENANTS,
    "tenants:app",
    "Create, show, suspend and delete tenants, and issue their credentials.",
)
_command(
    _TENANTS,
    "plans:app",
    "Show and change the plans that tenants can be on; they hold within a second.",
)
_command(
    _TENANTS,
    "quota:quota",
    "Show every limit of a tenant: what is used, what is left, when it begins anew.",
    "tenantry quota acme",
    "tenantry quota acme -o json",
)
_command(
    _TENANTS,
    "messages:request",
    "Ask a service as a tenant's program does, and print its answer.",
    """tenantry request acme orders.place '{"sku": "A-1", "quantity": 2}'""",
    "tenantry request acme ledger.total | jq .cents",
    "tenantry request acme orders.place @order.json --timeout 2",
)
_command(
    _TENANTS,
    "messages:publish",
    "Send a command as a tenant's program does; print its number in the journal.",
    "tenantry publish acme orders.import @orders.json",
    "generate | tenantry publish acme orders.import - --id batch-17",
)
_command(
    _TENANTS, "journal:app", "Read, export, import and erase one tenant's messages in the journal."
)
_command(
    _TENANTS,
    "replay:app",
    "Have a service handle one tenant's journal once more, and see how far it is.",
)
_command(
    _TENANTS,
    "recover:recover",
    "Rebuild TENANT's state from its journal, show the difference, then swap.",
    "tenantry recover acme --until 2026-11-21T08:00:00Z",
    "tenantry recover acme --until 4711 --service ledger  # before message 4711",
    "tenantry recover acme --skip 4711 --yes              # all but that one",
    "tenantry recover acme --back",
)
_command(
    _TENANTS,
    "dead:app",
    "Dead letters: list and show what services gave up on, redrive it, or drop it.",
)
_command(
    _TENANTS,
    "services:services",
    "Show the services of the mesh: versions, running instances, actions and counts.",
    "tenantry services",
    "tenantry services orders",
    "tenantry services --lag                       # who is behind, and how far",
    "tenantry services -o json",
)
_command(
    _TENANTS,
    "top:top",
    "Show the tenants of the mesh, the busiest first: live, or once in a pipe.",
    "tenantry top                                  # the busiest, live; q ends it",
    "tenantry top --sort limited -n 5              # who is over a limit",
    "tenantry top --sort latency | head            # once, as a plain table",
    "tenantry top --tenant acme -o json | jq .tenants[0].p99_ms",
)
_command(_TENANTS, "schedules:app", "Show and cancel the commands that services send later.")
_command(
    _TENANTS,
    "audit:audit",
    "Show refusals that look like attacks, the oldest first.",
    "tenantry audit                                # all of the last 90 days",
    "tenantry audit --tenant acme --since 2h       # by acme, or aimed at acme",
    "tenantry audit --kind forged_credentials -f   # those to come, too",
    "tenantry audit -o json | jq -s 'map(.count) | add'",
)

_command(
    _RUN,
    "run:run",
    "Run a worker in this process until SIGTERM or Ctrl-C; twice ends it at once.",
    "tenantry run shop.orders:service shop.ledger:service",
    "tenantry run router --url nats://nats-1:4222,nats://nats-2:4222 --home DIR",
    "tenantry run tenants --home /etc/tenantry",
)
_command(_RUN, "nats:app", "Make the operator's directory, server configuration and credentials.")
_command(
    _RUN,
    "keys:app",
    "Keys: list those that the mesh trusts, have another take over, take one away.",
)
_command(
    _RUN,
    "backup:backup",
    "Copy the journal, dead letters, schedules and buckets, with their consumers.",
    "tenantry backup /backup/2026-11-21 --verify",
    "tenantry backup /backup/nightly --url nats://nats-1:4222 --home /etc/tenantry",
)
_command(
    _RUN,
    "backup:restore",
    "Bring a backup into a server on which no worker runs.",
    "tenantry restore /backup/2026-11-21 --check   # only look whether it is whole",
    "tenantry restore /backup/2026-11-21 --url nats://new:4222 --home /etc/tenantry",
    "tenantry down && tenantry restore saved --replace && tenantry up -d",
)
_command(
    _RUN,
    "contracts:subjects",
    "Every subject of the mesh: who publishes and who consumes what, in which stream.",
    "tenantry subjects",
    "tenantry subjects --write",
)
_command(
    _RUN,
    "contracts:schemas",
    "The JSON Schemas of the messages that Tenantry defines; of one, with NAME.",
    "tenantry schemas Plan",
    "tenantry schemas --write --dir ~/tenantry",
)

app = tree()
