"""`tenantry request` and `tenantry publish`: messages as a tenant's program sends them."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from tenantry import subjects
from tenantry.cli import connection, loop, output
from tenantry.cli.connection import Connection
from tenantry.cli.options import Output, TenantId
from tenantry.client import Client
from tenantry.errors import BadMessage, ConnectionFailed, SetupError
from tenantry.wire import headers

T = TypeVar("T")

Action = Annotated[str, Parameter(help="SERVICE.ACTION, such as orders.place")]
Body = Annotated[
    str | None,
    Parameter(help="JSON, @FILE, or - for stdin; by default {}", allow_leading_hyphen=True),
]
Timeout = Annotated[
    float,
    Parameter(
        help="seconds to wait for the answer", validator=Number(gt=0, lt=headers.MAX_TIMEOUT)
    ),
]


def request(
    tenant: TenantId,
    action: Action,
    body: Body = None,
    /,
    *,
    timeout: Timeout = 10.0,
    at: Connection = connection.DEFAULT,
) -> None:
    """Ask a service as a tenant's program does, and print its answer.

    The answer is JSON: indented on a terminal, as it came in a pipe.
    """
    content = _body(body)

    async def ask(client: Client) -> msgspec.Raw:
        return await client.request(action, content, type=msgspec.Raw, timeout=timeout)

    output.raw(bytes(loop.run(_as_tenant(tenant, action, at, ask))))


def publish(
    tenant: TenantId,
    action: Action,
    body: Body = None,
    /,
    *,
    id: Annotated[  # noqa: A002
        str | None, Parameter(help="a repeat with the same id is stored once (two minutes)")
    ] = None,
    timeout: Timeout = 10.0,
    form: Output = "table",
    at: Connection = connection.DEFAULT,
) -> None:
    """Send a command as a tenant's program does; print its number in the journal."""
    content = _body(body)

    async def send(client: Client) -> Any:
        return await client.publish(action, content, msg_id=id, timeout=timeout)

    stored = loop.run(_as_tenant(tenant, action, at, send))
    if form == "json":
        output.json(stored)
    else:
        output.line(f"{stored.seq}{' (duplicate)' if stored.duplicate else ''}")


async def _as_tenant(
    tenant: str, action: str, at: Connection, use: Callable[[Client], Awaitable[T]]
) -> T:
    subjects.address(tenant, action)
    creds = at.tenant_creds(tenant)
    try:
        client = await Client.connect(at.server(), creds=creds, name="tenantry-cli")
    except ConnectionFailed as error:
        raise at.explain(error) from None
    async with client:
        return await use(client)


def _body(text: str | None) -> bytes:
    """The bytes to send, checked to be JSON. Raises :class:`BadMessage` with the position."""
    if text is None:
        return b"{}"
    where = "the body"
    if text == "-":
        where, content = "stdin", sys.stdin.buffer.read()
    elif text.startswith("@"):
        where = text[1:]
        try:
            content = Path(where).read_bytes()
        except OSError as error:
            raise SetupError(f"{where} can't be read: {error.strerror}") from None
    else:
        content = text.encode(errors="surrogateescape")
    try:
        json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise BadMessage(f"{where} is not UTF-8: byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise BadMessage(
            f"{where} is not JSON: {error.msg}, line {error.lineno} column {error.colno}",
            hint='quote it for the shell: \'{"sku": "A-1"}\'' if where == "the body" else "",
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"{where} is not JSON: {error}") from None
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
