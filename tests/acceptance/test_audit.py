"""`tenantry audit`: what an operator sees of refusals that look like attacks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats
import pytest

from tests.acceptance.cli import Cli, soon


def rows(cli: Cli, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cli.ok("audit", "-o", "json", *arguments).out.splitlines()]


def publish(cli: Cli, tenant: str, subject: str, **headers: str) -> None:
    asyncio.run(_publish(cli, tenant, subject, headers))


async def _publish(cli: Cli, tenant: str, subject: str, headers: dict[str, str]) -> None:
    client = await nats.connect(
        cli.running()["url"],
        user_credentials=str(cli.folder / f"{tenant}.creds"),
        inbox_prefix=f"_INBOX.{tenant}",
    )
    await client.publish(subject, b"{}", headers=headers or None)
    await client.flush()
    await client.close()


def test_a_violation_is_shown_in_a_mesh_of_tenantry_up(mesh: Cli, tenant: str) -> None:
    publish(mesh, tenant, "tenant.acme.orders.place")
    soon(lambda: bool(rows(mesh, "--tenant", tenant, "--kind", "permission_violation")))
    (event,) = rows(mesh, "--tenant", tenant)
    assert (event["tenant"], event["victim"], event["count"]) == (tenant, "acme", 1)


def test_what_was_aimed_at_a_tenant_is_shown_with_it(mesh: Cli, tenant: str) -> None:
    publish(mesh, "acme", f"tenant.{tenant}.orders.place")
    soon(lambda: bool(rows(mesh, "--tenant", tenant)))
    assert rows(mesh, "--tenant", tenant)[0]["tenant"] == "acme"


def test_a_table_is_for_people(mesh: Cli, tenant: str) -> None:
    publish(mesh, tenant, f"tenant.{tenant}.orders.total", **{"Tenant-Context": "x"})
    soon(lambda: tenant in mesh.ok("audit").out)
    head, line = mesh.ok("audit", "--tenant", tenant, "--since", "1h").out.splitlines()
    assert head.split()[:3] == ["TIME", "KIND", "COUNT"]
    assert line.split()[1:4] == ["forged_header", "1", tenant]


def test_nothing_is_shown_of_a_time_to_come(mesh: Cli) -> None:
    assert rows(mesh, "--since", "2126-01-01") == []


@pytest.mark.parametrize(
    "arguments", [("--kind", "nonsense"), ("--since", "soon"), ("--tenant", "A.B")]
)
def test_what_makes_no_sense_is_an_error(mesh: Cli, arguments: tuple[str, str]) -> None:
    assert mesh("audit", *arguments).code


def test_one_can_follow(mesh: Cli, shop: Cli, tenant: str) -> None:
    arguments = ("audit", "-f", "-o", "json", "--since", "1h", "--tenant", tenant)
    with shop.foreground(*arguments) as following:
        publish(mesh, tenant, f"tenant.{tenant}.a.b", **{"Tenant-Context": "x"})
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["kind"] == "forged_header"
