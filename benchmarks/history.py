"""The work of a replay's benchmark: none at all."""

from __future__ import annotations

from msgspec import Struct

from tenantry import Context, Service

BODY = b'{"note":"' + b"x" * 245 + b'"}'


class Fact(Struct, frozen=True):
    """256 bytes of JSON."""

    note: str


service = Service("history", version="1.0.0", concurrency=256)


@service.command("take", public=True, replayable=True)
async def take(_ctx: Context, _fact: Fact) -> None:
    """Do nothing."""


@service.request("ask", public=True)
async def ask(_ctx: Context, fact: Fact) -> Fact:
    """Answer with the same."""
    return fact
