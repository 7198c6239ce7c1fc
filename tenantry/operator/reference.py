"""The reference configurations in `infra/nats`, rendered from the template of every server.

`python -m tenantry.operator.reference infra/nats` writes them; a test holds the files against it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tenantry.operator.server_conf import ClusterOptions, ServerOptions, render_server_conf

_NODES = ("n1", "n2", "n3")
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - clients and nodes are on other machines


def _node(name: str, *, durable: bool = False) -> ServerOptions:
    return ServerOptions(
        server_name=name,
        host=_EVERYWHERE,
        http_port=8222,
        sync_interval="always" if durable else "",
        cluster=ClusterOptions(
            listen=f"{_EVERYWHERE}:6222", routes=tuple(f"nats://{node}:6222" for node in _NODES)
        ),
    )


REFERENCE: Mapping[str, ServerOptions] = MappingProxyType(
    {
        "single/server.conf": ServerOptions(host=_EVERYWHERE, http_port=8222),
        "durable/server.conf": ServerOptions(
            host=_EVERYWHERE, http_port=8222, sync_interval="always"
        ),
    }
    | {f"cluster/{name}.conf": _node(name) for name in _NODES}
    | {f"durable/{name}.conf": _node(name, durable=True) for name in _NODES}
)
"""Path below `infra/nats` and what that server is given."""


def write(directory: Path) -> None:
    """Write all reference configurations below `directory`."""
    for name, options in REFERENCE.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_server_conf(options), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
