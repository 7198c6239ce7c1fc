"""The processes under chaos: a whole mesh, or the plain workers that are its counter-proof."""

from __future__ import annotations

import asyncio
import json
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from chaos.book import BEGINNINGS
from chaos.cluster import Cluster, free_ports
from chaos.process import Process
from chaos.proxy import Proxy
from tenantry.control import Control
from tenantry.errors import TenantryError
from tenantry.local import mesh as local
from tenantry.local.server import find_nats_server, read_info
from tenantry.operator import ServerOptions, roles
from tenantry.operator.creds import public_key_of
from tenantry.replays import Replays

DRAIN = 8.0
SERVICES = ("chaos.service:chaos", "chaos.service:echo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything there is."""

    tenants: int = 20
    producers: int = 2
    routers: int = 2
    replicas: int = 3
    nodes: int = 1
    """NATS servers; with three, each stream is kept by all of them."""

    def names(self) -> list[str]:
        """The tenants."""
        return [f"t{number:03d}" for number in range(self.tenants)]


@dataclass
class World(ABC):
    """A NATS server, processes around it, and a proxy for each that has a network to lose."""

    folder: Path
    size: Size
    ports: list[int] = field(default_factory=list)
    """Of the NATS servers."""
    processes: dict[str, Process] = field(default_factory=dict)
    proxies: dict[str, Proxy] = field(default_factory=dict)
    whole = True
    """Whether it knows unordered and later commands."""

    def __post_init__(self) -> None:
        self.ports = free_ports(self.size.nodes)

    @property
    def urls(self) -> list[str]:
        """Where producers and the oracle connect: no proxy in between."""
        return [f"nats://127.0.0.1:{port}" for port in self.ports]

    @abstractmethod
    async def start(self) -> None:
        """Start everything, and make the tenants."""

    @abstractmethod
    async def producer(self, tenant: str) -> Client:
        """A plain client of a tenant."""

    @abstractmethod
    async def reader(self) -> Client:
        """A plain client that may read everything."""

    @abstractmethod
    async def replay(self, tenant: str) -> bool:
        """Ask for a replay of a tenant in the service `echo`; False where that can't be now."""

    def targets(self) -> dict[str, list[str]]:
        """What faults may strike: the processes by role."""
        roles: dict[str, list[str]] = {}
        for name in self.processes:
            roles.setdefault(name.partition("-")[0], []).append(name)
        return roles

    def troubles(self) -> list[str]:
        """What processes did of themselves."""
        return [text for process in self.processes.values() for text in process.troubles]

    async def close(self) -> None:
        """End all processes and proxies."""
        for process in reversed(self.processes.values()):
            process.resume()
            await process.kill()
        for proxy in self.proxies.values():
            await proxy.close()

    async def _nats(self, config: Path) -> None:
        """One server alone."""

        async def greets() -> bool:
            return await asyncio.to_thread(read_info, self.ports[0]) is not None

        program = str(find_nats_server())
        command = (program, "-c", str(config), "-a", "127.0.0.1", "-p", str(self.ports[0]))
        await self._add(Process("nats", command, self.folder, ready=greets))

    async def _python(self, name: str, *arguments: str) -> None:
        """A process of ours behind a proxy of its own."""
        proxy = self.proxies[name] = await Proxy(*self.ports).start()
        command = (sys.executable, "-P", "-m", *arguments)
        url = ("--url", f"nats://127.0.0.1:{proxy.port}")
        await self._add(Process(name, (*command, *url), self.folder, asked=self._asked))

    def _asked(self, pid: int) -> bool:
        """Whether a killer has ended this process."""
        file = self.folder / BEGINNINGS
        lines = file.read_bytes().splitlines() if file.exists() else []
        return any(json.loads(line)["pid"] == pid for line in lines)

    async def _add(self, process: Process) -> None:
        self.processes[process.name] = process
        await process.start()


class MeshWorld(World):
    """What `tenantry up` would run, with more routers and replicas and without its supervisor."""

    @property
    def home(self) -> Path:
        """The operator's directory."""
        return self.folder / "operator"

    async def start(self) -> None:
        """See :class:`World`."""
        nodes = self.size.nodes
        options = ServerOptions(
            port=self.ports[0], store_dir="./data", resolver_dir="./data/accounts"
        )
        local.plant(self.home, server_options=options, replicas=nodes, disk=4 * 1024**3)
        if nodes == 1:
            await self._nats(self.home / "server.conf")
        else:
            cluster = Cluster(self.home, self.folder, self.ports)
            await asyncio.gather(*(self._add(node) for node in cluster.nodes()))
        where = ("--home", str(self.home), "--drain", f"{DRAIN:g}")
        await self._python("tenants", "tenantry", "run", "tenants", *where)
        await asyncio.gather(
            *(
                self._python(f"router-{number}", "tenantry", "run", "router", *where)
                for number in range(1, self.size.routers + 1)
            ),
            *(
                self._python(f"worker-{number}", "tenantry", "run", *SERVICES, *where)
                for number in range(1, self.size.replicas + 1)
            ),
        )
        async with await Control.connect(self.urls, creds=self._creds("control")) as control:
            for tenant in self.size.names():
                _, text = await control.create(tenant, plan="business")
                (self.folder / f"{tenant}.creds").write_text(text)

    async def producer(self, tenant: str) -> Client:
        """See :class:`World`."""
        creds = self.folder / f"{tenant}.creds"
        return await _connect(self.urls, str(creds), inbox=f"_INBOX.{tenant}")

    async def reader(self) -> Client:
        """See :class:`World`."""
        creds = self._creds("control")
        inbox = roles.inbox_prefix(public_key_of(creds.read_text()))
        return await _connect(self.urls, str(creds), inbox=inbox)

    async def replay(self, tenant: str) -> bool:
        """See :class:`World`."""
        creds = self._creds("control")
        try:
            async with await Control.connect(self.urls, creds=creds) as control:
                await Replays(control.bus).ask(tenant, "echo", by="chaos")
        except TenantryError:
            return False  # one is under way, or NATS is away
        return True

    def targets(self) -> dict[str, list[str]]:
        """See :class:`World`."""
        return super().targets() | {"tenant": self.size.names()}

    def _creds(self, role: str) -> Path:
        return self.home / "creds" / f"{role}.creds"


class PlainWorld(World):
    """The same streams on a server without accounts, and workers of nothing but nats-py."""

    whole = False

    async def start(self) -> None:
        """See :class:`World`."""
        config = self.folder / "server.conf"
        config.write_text('jetstream: { store_dir: "./data" }\n')
        await self._nats(config)
        client = await self.reader()
        await _plain_streams(client)
        await client.close()
        await asyncio.gather(
            *(
                self._python(f"worker-{number}", "chaos.plain")
                for number in range(1, self.size.replicas + 1)
            )
        )

    async def producer(self, tenant: str) -> Client:
        """See :class:`World`."""
        return await _connect(self.urls, inbox=f"_INBOX.{tenant}")

    async def reader(self) -> Client:
        """See :class:`World`."""
        return await _connect(self.urls)

    async def replay(self, tenant: str) -> bool:  # noqa: ARG002  (by hand there is none)
        """See :class:`World`."""
        return False


async def _connect(urls: list[str], creds: str | None = None, *, inbox: str = "_INBOX") -> Client:
    """nats-py as it comes, told to reconnect for as long as it takes."""
    return await nats.connect(
        list(urls),
        user_credentials=creds,
        inbox_prefix=inbox,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.3,
        error_cb=_ignore,
    )


async def _ignore(_error: Exception) -> None:
    """Errors of a connection are what this is about."""


async def _plain_streams(client: Client) -> None:
    """The journal, dead letters and state, laid out as the mesh has them."""
    js = client.jetstream()
    streams: list[dict[str, Any]] = [
        {
            "name": "JOURNAL",
            "subjects": ["tenant.*.*.*"],
            "subject_transform": {
                "src": "tenant.*.*.*",
                "dest": "journal.{{partition(16,1)}}.{{wildcard(1)}}.{{wildcard(2)}}"
                ".{{wildcard(3)}}",
            },
        },
        {"name": "DEAD", "subjects": ["dead.*.*.*"]},
        {"name": "KV_state", "subjects": ["$KV.state.>"], "max_msgs_per_subject": 1},
    ]
    for config in streams:
        try:
            await js.stream_info(config["name"])
        except NotFoundError:
            body = {"storage": "file", "retention": "limits", "num_replicas": 1, **config}
            subject = f"$JS.API.STREAM.CREATE.{config['name']}"
            await client.request(subject, json.dumps(body).encode(), timeout=5)
