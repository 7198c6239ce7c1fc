"""NATS operator mode: keys, JWTs, credentials, roles and the server's configuration.

This package writes and reads files; it never talks to a server. What it makes is what `nsc` would
make, so the `nats` CLI and nats-server take it as it is.
"""

from tenantry.operator.home import OperatorHome
from tenantry.operator.server_conf import ClusterOptions, ServerOptions, render_server_conf

__all__ = ["ClusterOptions", "OperatorHome", "ServerOptions", "render_server_conf"]
