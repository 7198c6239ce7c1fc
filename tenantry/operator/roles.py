"""Who may publish and subscribe what: every permission of the mesh, in this one place.

A template belongs to a scoped signing key, so it holds for every credential that the key has
signed or will sign, and a change of it needs no new credentials. `{{tag(tenant)}}` is the value
of the tag `tenant:<id>` of the user JWT, `{{subject()}}` the user's own public key (ADR-14). A tag
with several values multiplies out, and a template may be part of a token. See
docs/decisions/0024-a-role-for-each-service.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tenantry.operator.claims import Permission, Template
from tenantry.streams import AUDIT, BUCKETS, DEAD, JOURNAL, RESTORING, SCHEDULES, TIMERS

OWN_INBOX = "_MESH.{{subject()}}.>"
ANY_MESH_INBOX = "_MESH.*.>"
TENANT_INBOX = "_INBOX.*.>"
AUDITED = "audit.*.*"
LOGINS_REFUSED = "$SYS.SERVER.*.CLIENT.AUTH.ERR"
"""Where the servers tell of refused logins, in the account SYS."""

DISCONNECTS = "platform.disconnects"
"""Where MESH sees the server's DISCONNECT events of its own clients."""

SIGNING_KEYS = "platform.signing_keys"
"""Where every replica of the tenants worker hears that the operator's directory has changed."""

ERASED = "platform.erased"
"""Subject on which every instance hears of an erasure; only the role `control` publishes it."""

TALLIES = "stats.tenants"
"""Where every instance tells what it has counted by tenant. Only the role `control` may ask."""


def inbox_prefix(public_key: str) -> str:
    """The inbox prefix of a mesh user: what `{{subject()}}` in its template allows."""
    return f"_MESH.{public_key}"


def tenant_inbox_prefix(tenant: str) -> str:
    """The inbox prefix of a tenant's programs."""
    return f"_INBOX.{tenant}"


_OWN = "{{tag(service)}}"
"""Each service that the holder of the credentials may run."""


def _watches(bucket: str, keys: str = ">") -> tuple[str, ...]:
    """A watch of some keys of a bucket (`tenantry.bus.Table`), which compares itself now and then.

    A watch is a consumer under a random name, so `*`: nobody can guess those of others.
    """
    api, stream = "$JS.API", f"KV_{bucket}"
    return (
        f"{api}.STREAM.INFO.{stream}",
        f"{api}.CONSUMER.CREATE.{stream}.*.$KV.{bucket}.{keys}",
        f"{api}.CONSUMER.MSG.NEXT.{stream}.*",
        f"{api}.CONSUMER.DELETE.{stream}.*",
    )


def _gets(bucket: str, keys: str = ">") -> tuple[str, ...]:
    """The latest value of a key. The key is in the subject, where permissions can see it."""
    return (f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{keys}",)


def _consumes(bucket: str, keys: str) -> tuple[str, ...]:
    """A consumer that goes once through some keys (`tenantry.bus.reading`)."""
    api, stream = "$JS.API.CONSUMER", f"KV_{bucket}"
    return (
        f"{api}.CREATE.{stream}.*.$KV.{bucket}.{keys}",
        f"{api}.INFO.{stream}.*",
        f"{api}.MSG.NEXT.{stream}.*",
        f"{api}.DELETE.{stream}.*",
    )


def _last_of(bucket: str) -> tuple[str, ...]:
    """The last sequence under some keys, as `Table.sync` asks: no permission can narrow it."""
    return (f"$JS.API.STREAM.MSG.GET.KV_{bucket}",)


def _reads_journal() -> tuple[str, ...]:
    """Readers of the journal (`tenantry.bus.reader`), and what comes next of a tenant.

    A reader is a consumer under a random name, so `*`: nobody can guess those of others. A service
    may follow any event, so it may read all of the journal.
    """
    api = "$JS.API"
    return (
        f"{api}.STREAM.INFO.{JOURNAL}",
        f"{api}.STREAM.MSG.GET.{JOURNAL}",
        f"{api}.DIRECT.GET.{JOURNAL}",
        f"{api}.CONSUMER.CREATE.{JOURNAL}.*.journal.>",
        f"{api}.CONSUMER.INFO.{JOURNAL}.*",
        f"{api}.CONSUMER.MSG.NEXT.{JOURNAL}.*",
        f"{api}.CONSUMER.DELETE.{JOURNAL}.*",
    )


def _discovery(service: str) -> tuple[str, ...]:
    """Where an instance hears questions of the NATS service protocol.

    Each verb by name: who may subscribe `$SRV.*` may subscribe `$SRV.>` too (nats-server 2.15.1).
    """
    return tuple(
        f"$SRV.{verb}{rest}"
        for verb in ("PING", "INFO", "STATS")
        for rest in ("", f".{service}", f".{service}.*")
    )


def _life(service: str) -> tuple[str, ...]:
    return (f"platform.alive.{service}", f"platform.gone.{service}")


_ROUTER = Template(
    sub=Permission(
        allow=(
            "edge.>",
            OWN_INBOX,
            *_discovery("router"),
            TALLIES,
            "platform.router.*",
            *_life("*"),
            DISCONNECTS,
        )
    ),
    pub=Permission(
        allow=(
            "request.*.*.*",
            "tenant.*.*.*",
            AUDITED,
            TENANT_INBOX,
            ANY_MESH_INBOX,
            "$SRV.PING",
            *_life("router"),
            "$KV.usage.>",
            *_watches("tenants"),
            *_watches("plans"),
            *_watches("catalogue"),
            *_watches("keys"),
            *_gets("keys"),
            *_last_of("keys"),
            *_gets("usage"),
            *_watches("volumes"),
            # How full the journal is; who has all of the directory learns no tenant's name by it.
            f"$JS.API.STREAM.INFO.{JOURNAL}",
            # By sequence, to renew what it has signed: that has no subject to hold it to.
            f"$JS.API.DIRECT.GET.{JOURNAL}",
        )
    ),
)

_SERVICE = Template(
    sub=Permission(
        allow=(
            f"request.*.{_OWN}.*",
            OWN_INBOX,
            *_discovery(_OWN),
            ERASED,
            TALLIES,
            *_life(_OWN),
            f"$KV.leases.{_OWN}.*",
            f"platform.released.{_OWN}.*",
        )
    ),
    pub=Permission(
        allow=(
            # Those of others too: requests and commands to them. Who gets one verifies its context.
            "request.*.*.*",
            "tenant.*.*.*",
            f"dead.*.{_OWN}.*",
            f"schedule.*.{_OWN}.*",
            f"timer.*.{_OWN}.*",
            AUDITED,
            TENANT_INBOX,
            ANY_MESH_INBOX,
            f"$SRV.PING.{_OWN}",
            *_life(_OWN),
            f"platform.released.{_OWN}.*",
            "platform.router.renew_context",
            f"$KV.catalogue.{_OWN}.>",
            f"$KV.state.*.{_OWN}.>",
            f"$KV.cursors.{_OWN}.*",
            f"$KV.replays.{_OWN}.*",
            f"$KV.checkpoints.{_OWN}.*",
            f"$KV.leases.{_OWN}.*",
            *_watches("keys"),
            *_gets("keys"),
            *_last_of("keys"),
            *_gets("catalogue", f"{_OWN}.>"),
            # What others declare: a handler sends and asks for nothing that is not there.
            *_watches("catalogue"),
            *_gets("state", f"*.{_OWN}.>"),
            *_consumes("state", f"*.{_OWN}.>"),
            *_watches("cursors", f"{_OWN}.*"),
            *_gets("cursors", f"{_OWN}.*"),
            *_last_of("cursors"),
            *_watches("replays", f"{_OWN}.*"),
            *_gets("replays", f"{_OWN}.*"),
            *_last_of("replays"),
            *_watches("suspended"),
            *_gets("checkpoints", f"{_OWN}.*"),
            *_gets("leases", f"{_OWN}.*"),
            *_consumes("leases", f"{_OWN}.*"),
            *_reads_journal(),
        )
    ),
)


def _manages(stream: str) -> tuple[str, ...]:
    """All of one stream but what its consumers deliver to others: no ack."""
    api = "$JS.API"
    return (
        f"{api}.STREAM.*.{stream}",
        f"{api}.STREAM.MSG.*.{stream}",
        f"{api}.DIRECT.GET.{stream}",
        f"{api}.DIRECT.GET.{stream}.>",
        f"{api}.CONSUMER.LIST.{stream}",
        f"{api}.CONSUMER.CREATE.{stream}.>",
        f"{api}.CONSUMER.INFO.{stream}.*",
        f"{api}.CONSUMER.MSG.NEXT.{stream}.*",
        f"{api}.CONSUMER.DELETE.{stream}.*",
        f"$JS.SNAPSHOT.*.{stream}.>",
    )


_STREAMS = (JOURNAL, DEAD, SCHEDULES, TIMERS, AUDIT, RESTORING, *(f"KV_{name}" for name in BUCKETS))
_WRITTEN = (
    *("tenants", "plans", "keys", "usage", "volumes"),
    *("cursors", "checkpoints", "replays", "redrives", "suspended"),
)
_OUTBOXES = {
    "KV_tenants": "tenants-events",
    "KV_plans": "tenants-plans",
    DEAD: "tenants-letters",
    TIMERS: "tenants-schedules",
}
"""The durable consumers of the tenants worker, by their streams."""

_CONTROL = Template(
    sub=Permission(
        allow=(
            OWN_INBOX,
            *_discovery("tenants"),
            "platform.tenants.*",
            SIGNING_KEYS,
            *_life("*"),
        )
    ),
    pub=Permission(
        allow=(
            "tenant.*.*.*",
            AUDITED,
            ANY_MESH_INBOX,
            "$SRV.*",
            "$SRV.*.*",
            ERASED,
            TALLIES,
            "platform.tenants.*",
            SIGNING_KEYS,
            *_life("tenants"),
            *(f"$KV.{bucket}.>" for bucket in _WRITTEN),
            *(f"$JS.ACK.{stream}.{consumer}.>" for stream, consumer in _OUTBOXES.items()),
            "$JS.API.STREAM.NAMES",
            *(subject for stream in _STREAMS for subject in _manages(stream)),
        )
    ),
)
"""The tenants worker, and an operator's commands: neither hears a tenant, or the edge."""

TENANT = Template(
    pub=Permission(allow=("tenant.{{tag(tenant)}}.>",)),
    sub=Permission(allow=("_INBOX.{{tag(tenant)}}.>",)),
)
"""What a tenant's own programs may do, in the account EDGE."""

SYSTEM = Template(
    pub=Permission(
        allow=(
            "$SYS.REQ.CLAIMS.UPDATE",
            "$SYS.REQ.SERVER.PING",
            "$SYS.REQ.SERVER.*.CONNZ",
            "$SYS.REQ.SERVER.*.KICK",
        )
    ),
    sub=Permission(
        allow=(
            OWN_INBOX,
            "$SYS.ACCOUNT.*.CONNECT",
            "$SYS.ACCOUNT.*.DISCONNECT",
            LOGINS_REFUSED,
        ),
    ),
)
"""The control plane in the account SYS: who may come in, and who is there."""

MESH_ROLES: Mapping[str, Template] = MappingProxyType(
    {"router": _ROUTER, "service": _SERVICE, "control": _CONTROL}
)
"""The roles of the account MESH by name."""
