"""A plain nats-py client for tests: no reconnecting, and every error kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from tenantry.operator import OperatorHome, creds, roles
from tests.mesh import root_creds

PATIENCE = 5.0
"""Seconds that something which has to happen may take."""
SILENCE = 0.3
"""Seconds after which something that must not happen counts as not happening."""


async def eventually(condition: Callable[[], bool], timeout: float = PATIENCE) -> bool:
    """Whether the condition holds within the time."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


async def _close(connection: Connection) -> None:
    await connection.close()
    # After a refused login nats-py leaves its socket open.
    if connection._transport is not None:
        connection._transport.close()
    await asyncio.sleep(0)


class Client:
    """A connection, its errors, and what it may do."""

    def __init__(self, public_key: str) -> None:
        self.public_key = public_key
        self.errors: list[str] = []
        self.nats = Connection()

    async def subscribe(self, subject: str, queue: str = "") -> Subscription:
        """Subscribe, and return when the server knows it."""
        subscription = await self.nats.subscribe(subject, queue=queue)
        await self.settle()
        return subscription

    async def answer(self, subject: str, cb: Callable[[Msg], Awaitable[None]]) -> None:
        await self.nats.subscribe(subject, cb=cb)
        await self.settle()

    async def settle(self) -> None:
        """Return when the server has taken everything; twice, since nats-py sends PING first."""
        await self.nats.flush()
        await self.nats.flush()

    async def may_subscribe(self, subject: str, queue: str = "") -> bool:
        await self.subscribe(subject, queue)
        return not await self._violated()

    async def may_publish(self, subject: str) -> bool:
        await self.nats.publish(subject, b"x")
        await self.settle()
        return not await self._violated()

    async def _violated(self) -> bool:
        # The error line came before the last PONG, only its callback may be waiting for its turn.
        await asyncio.sleep(0.05)
        violated = any("permissions violation" in error for error in self.errors)
        self.errors.clear()
        return violated


class Mesh:
    """Connects clients to one server and closes them at the end."""

    def __init__(self, home: OperatorHome, url: str, directory: Path, stack: AsyncExitStack):
        self.home = home
        self.url = url
        self._directory = directory
        self._stack = stack
        self._count = 0

    async def tenant(self, tenant: str) -> Client:
        return await self.connect(self.home.tenant_creds(tenant))

    async def role(self, role: str, *services: str) -> Client:
        """A client in a role; one of the role service is for orders, unless it says for what."""
        if role == "service":
            services = services or ("orders",)
        return await self.connect(self.home.issue_role(role, role, services=services))

    async def root(self) -> Client:
        """A client in MESH that may do everything."""
        return await self.connect(root_creds(self.home, self._directory).read_text())

    async def connect(self, text: str) -> Client:
        """Connect with credentials, under the inbox prefix that belongs to them."""
        self._count += 1
        file = self._directory / f"{self._count}.creds"
        file.write_text(text)
        client = Client(creds.public_key_of(text))
        tenant = creds.tenant_of(text)
        inbox = (
            roles.tenant_inbox_prefix(tenant) if tenant else roles.inbox_prefix(client.public_key)
        )
        return await self.open(
            client, name=f"test-{self._count}", user_credentials=str(file), inbox_prefix=inbox
        )

    async def open(self, client: Client, **options: Any) -> Client:
        """Connect a client as it is."""

        async def on_error(error: Exception) -> None:
            client.errors.append(str(error))

        self._stack.push_async_callback(_close, client.nats)
        await client.nats.connect(self.url, allow_reconnect=False, error_cb=on_error, **options)
        return client

    async def push(self, jwt: str) -> Any:
        """Push an account JWT as the control plane does; the server's answer."""
        system = await self.role("sys")
        reply = await system.nats.request("$SYS.REQ.CLAIMS.UPDATE", jwt.encode(), timeout=PATIENCE)
        return json.loads(reply.data)["data"]

    async def refuses(self, text: str) -> bool:
        """Whether the server turns these credentials away."""
        try:
            client = await self.connect(text)
        except Error as error:
            return "Authorization Violation" in str(error)
        await client.nats.close()
        return False
