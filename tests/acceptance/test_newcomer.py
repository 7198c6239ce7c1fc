"""The first ten minutes of somebody new, as the README tells them."""

from __future__ import annotations

import json

import pytest

from tests.acceptance.cli import SHOP, Cli, soon

pytestmark = pytest.mark.slow


def test_a_newcomer_sees_a_message_from_a_tenant_to_a_service_and_back(cli: Cli) -> None:
    with cli.up(*SHOP) as line:
        assert line.startswith("ready nats://127.0.0.1:")
        assert cli.ok("tenants", "create", "acme").out == (
            "created acme on the plan standard\ncredentials: acme.creds\n"
        )
        order = cli.ok("request", "acme", "orders.place", '{"sku": "A-1", "quantity": 2}').json
        assert (order["sku"], order["total"]) == ("A-1", 2500)
        orders = [{"sku": "B-2", "quantity": 1}] * 3
        cli.write("orders.json", json.dumps({"orders": orders}))
        assert cli.ok("publish", "acme", "orders.import", "@orders.json").out.strip().isdigit()
        soon(lambda: cli("request", "acme", "ledger.total").out == '{"orders":4,"cents":3697}\n')
        assert "orders   1.0.0    1" in cli.ok("services").out
        assert cli.ok("status").out.startswith(line.removeprefix("ready ").strip())
        assert cli.ok("down").out == line.replace("ready", "stopped")
    assert cli("status").out == f"nothing runs in {cli.state}\n"
    with cli.up(*SHOP):  # the next day
        assert cli.ok("request", "acme", "ledger.total").json == {"orders": 4, "cents": 3697}
