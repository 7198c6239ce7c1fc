"""Three NATS servers that keep every stream three times."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from chaos.process import Process, Ready
from tenantry.local.server import find_nats_server, free_port
from tenantry.operator import ServerOptions
from tenantry.operator.server_conf import ClusterOptions, render_server_conf

_ASKED = 2.0
"""How long a server may take to say that it is healthy, seconds."""


def free_ports(count: int) -> list[int]:
    """So many different ports on which nobody listens."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return sorted(ports)


class Cluster:
    """The servers of an operator's directory `home`, one for each of `ports`."""

    def __init__(self, home: Path, folder: Path, ports: list[int]) -> None:
        self._home = home
        self._folder = folder
        self._ports = ports
        self._inner = free_ports(2 * len(ports))
        """Ports for routes, then those for monitoring."""

    def nodes(self) -> Iterator[Process]:
        """The servers, not started yet: `nats-1` and so on."""
        program = str(find_nats_server())
        count = len(self._ports)
        routes = tuple(f"nats://127.0.0.1:{port}" for port in self._inner[:count])
        for number, port in enumerate(self._ports, 1):
            monitoring = self._inner[count + number - 1]
            options = ServerOptions(
                server_name=f"n{number}",
                port=port,
                http_port=monitoring,
                store_dir=f"./data/n{number}",
                resolver_dir=f"./data/n{number}/accounts",
                cluster=ClusterOptions(
                    listen=f"127.0.0.1:{self._inner[number - 1]}", routes=routes
                ),
            )
            # Clients that learned of the other servers would go around their proxy.
            text = render_server_conf(options).replace(
                "cluster: {", "cluster: {\n  no_advertise: true"
            )
            config = self._home / f"n{number}.conf"
            config.write_text(text)
            yield Process(
                f"nats-{number}",
                (program, "-c", str(config)),
                self._folder,
                ready=_healthy(monitoring),
            )


def _healthy(port: int) -> Ready:
    """Tells whether a server has joined the others and has all that its streams hold."""

    def ask() -> bool:
        try:
            url = f"http://127.0.0.1:{port}/healthz"
            with urllib.request.urlopen(url, timeout=_ASKED) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    async def healthy() -> bool:
        return await asyncio.to_thread(ask)

    return healthy
