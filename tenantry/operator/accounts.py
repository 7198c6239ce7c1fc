"""The three accounts SYS, EDGE and MESH, and what passes between them.

Everything between accounts is a stream import. A service import would rewrite the reply to
`_R_.…`, and nats-server refuses a client that forwards such a reply.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tenantry.operator import roles
from tenantry.operator.claims import (
    UNLIMITED,
    WITH_JETSTREAM,
    Account,
    Export,
    Import,
    ScopedKey,
)


def sys_account(control_key: str) -> Account:
    """SYS: its own account's events for each account that imports them, as `nsc` sets it up."""
    return Account(
        exports=(
            Export(
                name="account-monitoring-streams",
                subject="$SYS.ACCOUNT.*.>",
                account_token_position=3,
            ),
        ),
        signing_keys=(ScopedKey(key=control_key, role="control", template=roles.SYSTEM),),
    )


def edge_account(mesh: str, tenant_key: str) -> Account:
    """EDGE: what tenants publish goes out to MESH, replies to their inboxes come in.

    `mesh` is MESH's public key, `tenant_key` that of the scoped key of all tenants.
    """
    return Account(
        # `>` and not `*.*.*`: with a wrong number of tokens the router has to see it to answer 400.
        exports=(Export(name="tenants", subject="tenant.>"),),
        imports=(Import(name="replies", subject=roles.TENANT_INBOX, account=mesh),),
        signing_keys=(ScopedKey(key=tenant_key, role="tenant", template=roles.TENANT),),
    )


def tenant_scope(key: str, subscriptions: int) -> ScopedKey:
    """What every tenant may, with so many subscriptions in a connection (0 for any number).

    The server lets one more pass: with each change of the account it cuts off whoever is at the
    limit, and who keeps to its plan must never notice.
    """
    subs = subscriptions + 1 if subscriptions else UNLIMITED
    template = msgspec.structs.replace(roles.TENANT, subs=subs)
    return ScopedKey(key=key, role="tenant", template=template)


def mesh_account(mesh: str, edge: str, system: str, role_keys: Mapping[str, str]) -> Account:
    """MESH: JetStream, the edge's messages as `edge.>`, the server's word on lost connections.

    The first three are public keys of accounts; `role_keys` maps each role to its scoped key's.
    """
    return Account(
        limits=WITH_JETSTREAM,
        exports=(Export(name="replies", subject=roles.TENANT_INBOX),),
        imports=(
            Import(name="tenants", subject="tenant.>", account=edge, local_subject="edge.>"),
            Import(
                name="disconnects",
                subject=f"$SYS.ACCOUNT.{mesh}.DISCONNECT",
                account=system,
                local_subject=roles.DISCONNECTS,
            ),
        ),
        signing_keys=tuple(
            ScopedKey(key=role_keys[role], role=role, template=template)
            for role, template in roles.MESH_ROLES.items()
        ),
    )
