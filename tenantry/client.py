"""A client for programs at the edge: one tenant's requests and durable commands.

Any NATS client will do in its place; this one knows the mesh's errors and types.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from tenantry import subjects
from tenantry.bus import Bus, Message, Stored
from tenantry.bus import jetstream as js
from tenantry.errors import Conflict, JetStreamError, SetupError, Unavailable
from tenantry.operator import creds as creds_files
from tenantry.wire import codec, headers, problem, trace

T = TypeVar("T")


class Client:
    """One tenant's connection to the edge.

    async with await Client.connect("nats://127.0.0.1:4222", creds="acme.creds") as acme:
        order = await acme.request("orders.place", {"sku": "A-1"}, type=Order)
    """

    def __init__(self, bus: Bus, tenant: str) -> None:
        self.tenant = tenant
        self._bus = bus

    @classmethod
    async def connect(
        cls,
        servers: str | Sequence[str] = "nats://127.0.0.1:4222",
        *,
        creds: str | Path,
        name: str = "tenantry-client",
    ) -> Client:
        """Connect with a tenant's credentials file.

        Raises :class:`~tenantry.errors.SetupError` for a file that is none, and
        :class:`~tenantry.errors.ConnectionFailed` when NATS is away or refuses it.
        """
        tenant = creds_files.tenant_of(creds_files.load(Path(creds)))
        if tenant is None:
            raise SetupError(
                f"{creds} holds no tenant's credentials",
                hint="make some with `tenantry tenants credentials issue TENANT`",
            )
        bus = await Bus.connect(servers, creds=creds, name=name, patience=5.0)
        return cls(bus, tenant)

    @overload
    async def request(
        self, action: str, body: Any = None, *, type: type[T], timeout: float = 10.0
    ) -> T: ...

    @overload
    async def request(
        self, action: str, body: Any = None, *, type: None = None, timeout: float = 10.0
    ) -> Any: ...

    async def request(
        self,
        action: str,
        body: Any = None,
        *,
        type: type[T] | None = None,  # noqa: A002
        timeout: float = 10.0,
    ) -> T | Any:
        """Ask `<service>.<action>` and return its answer, decoded as `type`.

        `body` is anything JSON can carry, or bytes as they are; `timeout` is in seconds and
        travels with the request. Raises the :class:`~tenantry.errors.Rejection` that the mesh or
        the service answers with.
        """
        answer = await self._ask(
            "request", action, body, {headers.TIMEOUT: f"{timeout:g}"}, timeout
        )
        return codec.Decoder(type if type is not None else Any)(answer.data)

    async def publish(
        self, action: str, body: Any = None, *, msg_id: str | None = None, timeout: float = 10.0
    ) -> Stored:
        """Send a command; when this returns, the journal has it.

        With a `msg_id`, a repeat within the journal's window (two minutes) is stored once.
        Raises the :class:`~tenantry.errors.Rejection` of the mesh, :class:`Unavailable` when the
        journal refuses, :class:`Conflict` where the action is a request.
        """
        fields = {headers.MSG_ID: msg_id} if msg_id is not None else {}
        answer = await self._ask("publish", action, body, fields, timeout)
        try:
            return js.stored(answer)
        except Unavailable:
            raise Conflict(
                f"{action} is a request: it was carried out, and nothing was stored",
                hint="ask with a request instead, and do not repeat this one",
            ) from None
        except JetStreamError as error:
            raise Unavailable(f"the journal refuses: {error.message}", retry_after=5.0) from None

    async def _ask(
        self, operation: str, action: str, body: Any, fields: dict[str, str], timeout: float
    ) -> Message:
        to = subjects.address(self.tenant, action)
        payload = body if isinstance(body, bytes) else codec.encode({} if body is None else body)
        with trace.span(
            f"{operation} {to.name}",
            trace.KIND_CLIENT,
            None,
            {
                "messaging.operation.name": operation,
                "messaging.operation.type": "send",
                "messaging.destination.template": f"tenant.*.{to.name}",
                "tenant.id": self.tenant,
            },
        ) as span:
            span.trace.inject(fields)
            answer = await self._bus.call(
                subjects.journal(to), payload, headers=fields, timeout=timeout
            )
            if rejection := problem.load(answer.headers, answer.data):
                span.failed(rejection.code)
                raise rejection
            return answer

    async def close(self) -> None:
        """Close the connection."""
        await self._bus.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
