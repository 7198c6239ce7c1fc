"""Who may publish and subscribe what: every permission of the mesh, in this one place.

A template belongs to a scoped signing key, so it holds for every credential that the key has
signed or will sign, and a change of it needs no new credentials. `{{tag(tenant)}}` is the value
of the tag `tenant:<id>` of the user JWT, `{{subject()}}` the user's own public key (ADR-14).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tenantry.operator.claims import Permission, Template
from tenantry.streams import JOURNAL

OWN_INBOX = "_MESH.{{subject()}}.>"
ANY_MESH_INBOX = "_MESH.*.>"
TENANT_INBOX = "_INBOX.*.>"
SERVICES = "$SRV.>"
AUDIT = "audit.*.*"
LOGINS_REFUSED = "$SYS.SERVER.*.CLIENT.AUTH.ERR"
"""Where the servers tell of refused logins, in the account SYS."""

DISCONNECTS = "platform.disconnects"
"""Where MESH sees the server's DISCONNECT events of its own clients."""

TALLIES = "stats.tenants"
"""Where every instance tells what it has counted by tenant. Only the role `control` may ask."""


def inbox_prefix(public_key: str) -> str:
    """The inbox prefix of a mesh user: what `{{subject()}}` in its template allows."""
    return f"_MESH.{public_key}"


def tenant_inbox_prefix(tenant: str) -> str:
    """The inbox prefix of a tenant's programs."""
    return f"_INBOX.{tenant}"


def _reads(stream: str) -> tuple[str, ...]:
    """Everything that reading a stream or watching a bucket asks of JetStream, and no writing."""
    api = "$JS.API"
    return (
        f"{api}.STREAM.INFO.{stream}",
        f"{api}.STREAM.MSG.GET.{stream}",
        f"{api}.DIRECT.GET.{stream}",
        f"{api}.DIRECT.GET.{stream}.>",
        # Without a name: that is how nats-py makes the ordered consumer of a KV watch.
        f"{api}.CONSUMER.CREATE.{stream}",
        f"{api}.CONSUMER.CREATE.{stream}.>",
        f"{api}.CONSUMER.INFO.{stream}.*",
        f"{api}.CONSUMER.MSG.NEXT.{stream}.*",
        f"{api}.CONSUMER.DELETE.{stream}.*",
        f"$JS.ACK.{stream}.>",
        f"$JS.FC.{stream}.>",
    )


def _buckets(*names: str) -> tuple[str, ...]:
    return tuple(subject for name in names for subject in _reads(f"KV_{name}"))


_CONSUMES_JOURNAL = (
    # The filter is part of the subject here; without it one could not be held to anything.
    f"$JS.API.STREAM.INFO.{JOURNAL}",
    f"$JS.API.CONSUMER.CREATE.{JOURNAL}.>",
    f"$JS.API.CONSUMER.INFO.{JOURNAL}.*",
    f"$JS.API.CONSUMER.MSG.NEXT.{JOURNAL}.*",
    f"$JS.API.CONSUMER.UNPIN.{JOURNAL}.*",
    f"$JS.API.CONSUMER.DELETE.{JOURNAL}.*",
    f"$JS.API.DIRECT.GET.{JOURNAL}",
    f"$JS.ACK.{JOURNAL}.>",
)

_ROUTER = Template(
    sub=Permission(allow=("edge.>", OWN_INBOX, SERVICES, TALLIES, "platform.>")),
    pub=Permission(
        allow=(
            "request.*.*.*",
            "tenant.*.*.*",
            AUDIT,
            TENANT_INBOX,
            ANY_MESH_INBOX,
            SERVICES,
            "platform.>",
            "$KV.keys.>",
            "$KV.usage.>",
            "$JS.API.INFO",
            *_buckets("tenants", "plans", "catalogue", "keys", "usage", "volumes"),
            *_reads(JOURNAL),
        )
    ),
)

_SERVICE = Template(
    sub=Permission(
        allow=(
            "request.*.*.*",
            OWN_INBOX,
            SERVICES,
            TALLIES,
            "platform.alive.*",
            "platform.gone.*",
        )
    ),
    pub=Permission(
        allow=(
            "request.*.*.*",
            "tenant.*.*.*",
            "dead.*.*.*",
            "schedule.*.*.*",
            "timer.*.*.*",
            AUDIT,
            TENANT_INBOX,
            ANY_MESH_INBOX,
            SERVICES,
            "platform.alive.*",
            "platform.gone.*",
            "platform.router.renew_context",
            "$KV.catalogue.>",
            "$KV.state.>",
            "$KV.cursors.>",
            "$KV.replays.>",
            "$JS.API.INFO",
            *_buckets("keys", "catalogue", "state", "cursors", "replays"),
            *_CONSUMES_JOURNAL,
        )
    ),
)

_CONTROL = Template(
    pub=Permission(allow=(">",)),
    # Even the control plane never reads what is not admitted yet.
    sub=Permission(allow=(">",), deny=("edge.>",)),
)

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
