"""The three accounts SYS, EDGE and MESH, and what passes between them.

Everything between accounts is a stream import. A service import would rewrite the reply to
`_R_.…`, and nats-server refuses a client that forwards such a reply.
"""

from __future__ import annotations

from collections.abc import Mapping

from tenantry.operator import roles
from tenantry.operator.claims import WITH_JETSTREAM, Account, Export, Import, ScopedKey


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
